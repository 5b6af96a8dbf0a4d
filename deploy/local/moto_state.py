"""moto's memory on disk, the identities that exist from the start, and what `ClientToken`s were answered."""

import hashlib
import json
import pickle
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
from moto import __version__ as moto_version
from moto.core.utils import utcnow
from moto.ec2.models import ec2_backends
from moto.iam.models import iam_backends
from moto.sts.models import sts_backends

from deploy.local.aws import ADMIN, DEMO_ROLE, AccountKeys, Keys, trust_policy
from deploy.local.state import write_private

_BACKENDS: dict[str, Any] = {"ec2": ec2_backends, "iam": iam_backends, "sts": sts_backends}
# As AWS promises for EC2: "for at least 24 hours" after the first request.
_TOKEN_LIFETIME = timedelta(hours=24)
_DISKS = "disks"

Request = tuple[str, str, str]
"""Access key id, action and client token."""
Answer = tuple[str, bytes]
"""HTTP status line and body."""


class MotoState:
    """The backends that moto keeps as globals, loaded from and saved to one file."""

    def __init__(self, directory: Path) -> None:
        self._snapshot = directory / "snapshot.pickle"
        self._credentials = directory / "credentials.json"
        self._tokens: dict[Request, tuple[datetime, str, Answer]] = {}

    def load(self) -> None:
        """Take over what the last run saved, if it was the same moto; forget sessions that have expired."""
        try:
            # Ours alone to write (mode 0600, in the state folder), so unpickling runs no stranger's code.
            version, saved, tokens = pickle.loads(self._snapshot.read_bytes())  # noqa: S301
        except FileNotFoundError:
            return
        if version != moto_version:
            return
        self._tokens = tokens
        for service, accounts in saved.items():
            for account, regions in accounts.items():
                for region, backend in regions.items():
                    _BACKENDS[service][account][region] = backend
        self._forget_the_expired()

    def save(self) -> None:
        """Write everything, durably."""
        self.write(self.dump())

    def write(self, content: bytes) -> None:
        """Write what `dump` gave, durably (about 20 ms)."""
        write_private(self._snapshot, content)

    def dump(self) -> bytes:
        """Everything, while nothing changes it."""
        living = {
            service: {account: dict(regions) for account, regions in backends.items()}
            for service, backends in _BACKENDS.items()
        }
        return pickle.dumps((moto_version, living, self._tokens))

    def seed(self, accounts: tuple[str, ...]) -> None:
        """Make sure that each account has its users and the demo role, and write down the users' keys."""
        keys = {account: _seed_account(account) for account in accounts}
        write_private(self._credentials, msgspec.json.encode(keys))
        self.save()

    def has_expired(self, key_id: str) -> bool:
        """Whether the key is of a role session whose time is over. moto itself never asks."""
        now = utcnow()
        return any(
            role.access_key_id == key_id and role.expiration <= now
            for _, _, backend in _sessions()
            for role in backend.assumed_roles
        )

    def replay(self, request: Request, parameters: dict[str, str]) -> Answer | None:
        """What the same creation was answered before; None when it is the first."""
        made, digest, answer = self._tokens.get(request, (None, "", None))
        if made is None or made < datetime.now(UTC) - _TOKEN_LIFETIME:
            return None
        if digest != _digest(parameters):
            return "400 Bad Request", _PARAMETER_MISMATCH
        return answer

    def remember(self, request: Request, parameters: dict[str, str], answer: Answer) -> None:
        """Keep the answer of a creation for its repetitions."""
        oldest = datetime.now(UTC) - _TOKEN_LIFETIME
        self._tokens = {key: value for key, value in self._tokens.items() if value[0] >= oldest}
        self._tokens[request] = (datetime.now(UTC), _digest(parameters), answer)

    def _forget_the_expired(self) -> None:
        now = utcnow()
        for account, region, backend in _sessions():
            for role in [role for role in backend.assumed_roles if role.expiration <= now - _TOKEN_LIFETIME]:
                backend.assumed_roles.remove(role)
                iam_backends[account][region].access_keys.pop(role.access_key_id, None)


def _sessions() -> Iterator[tuple[str, str, Any]]:
    """Account, partition and STS backend of each."""
    yield from sts_backends.iter_backends()


_PARAMETER_MISMATCH = (
    b"<Response><Errors><Error><Code>IdempotentParameterMismatch</Code><Message>The client token was used with"
    b" other parameters</Message></Error></Errors><RequestID>local</RequestID></Response>"
)


def _digest(parameters: dict[str, str]) -> str:
    return hashlib.sha256(json.dumps(parameters, sort_keys=True).encode()).hexdigest()


def _seed_account(account: str) -> AccountKeys:
    iam = iam_backends[account]["aws"]
    names = {user.name for user in iam.list_users("/", None, None)}
    for name, actions in ((ADMIN, "*"), (_DISKS, "ec2:*")):
        if name not in names:
            iam.create_user("us-east-1", name)
            iam.put_user_policy(name, "allowed", _policy(actions))
            iam.create_access_key(name)
    if DEMO_ROLE not in {role.name for role in iam.roles.values()}:
        _create_role(iam, account, DEMO_ROLE)
    return AccountKeys(admin=_keys(iam, ADMIN), disks=_keys(iam, _DISKS))


def _create_role(iam: Any, account: str, name: str) -> None:
    iam.create_role(
        role_name=name,
        assume_role_policy_document=trust_policy(account),
        path="/",
        permissions_boundary=None,
        description="",
        tags=[],
        max_session_duration="43200",
    )


def _policy(actions: str) -> str:
    statement = {"Effect": "Allow", "Action": actions, "Resource": "*"}
    return json.dumps({"Version": "2012-10-17", "Statement": [statement]})


def _keys(iam: Any, user: str) -> Keys:
    key = iam.get_user(user).access_keys[0]
    return Keys(access_key_id=key.access_key_id, secret_access_key=key.secret_access_key)
