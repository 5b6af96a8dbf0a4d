"""Who may log in: which caller of AWS is an allowed role, and what the user is called."""

import re
from collections.abc import Sequence
from datetime import datetime

import msgspec

from shared.contracts.audit import AuditObject
from shared.errors import Forbidden

# IAM role names may hold commas, so a list of ARNs is split only where the next ARN begins.
_BETWEEN_ARNS = re.compile(r",\s*(?=arn:)")
_ROLE_ARN = re.compile(
    r"arn:(?P<partition>aws[a-z-]*):iam::(?P<account>[0-9]{12}):role/(?:[!-~]+/)?(?P<name>[A-Za-z0-9_+=,.@-]{1,64})"
)
# https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_identifiers.html: sessions carry no path of their role
_SESSION_ARN = re.compile(
    r"arn:(?P<partition>aws[a-z-]*):sts::(?P<account>[0-9]{12}):assumed-role/(?P<role>[^/]+)/(?P<session>[^/]+)"
)
_ROLE_SESSION_ID = re.compile(r"(?P<role_id>AROA[A-Z0-9]+):(?P<session>.+)")
_USERNAME = re.compile(r"[A-Za-z0-9._@-]{1,64}")
_USER_ID = re.compile(r"[1-9][0-9]{0,17}")


class NotAnAllowedRole(Forbidden):
    """The credentials are genuine, but of somebody who may not log in."""

    def __init__(self, allowed: Sequence["AllowedRole"]) -> None:
        required = " or ".join(role.arn for role in allowed)
        super().__init__(f"These AWS credentials are not of an allowed role. Required: a session of {required}")


class UnusableSessionName(Forbidden):
    """The role session's name cannot be a username. It is refused, not changed: changed names collide."""

    def __init__(self) -> None:
        super().__init__(
            "The role session name is the username and may have only letters, digits, '.', '_', '-' and '@'"
        )


class AllowedRole(msgspec.Struct, frozen=True, kw_only=True):
    """A role whose sessions may log in. Names are unique in an account whatever their path."""

    arn: str
    """As configured; shown to those who are refused."""
    partition: str
    account: str
    name: str


class AwsCredentials(msgspec.Struct, frozen=True, kw_only=True):
    """Used for one call and dropped: never stored, logged or shown."""

    access_key_id: str
    secret_access_key: str
    session_token: str | None

    def __repr__(self) -> str:
        return "AwsCredentials(...)"


class SignedQuestion(msgspec.Struct, frozen=True, kw_only=True):
    """The question to AWS whose the credentials are, signed by who has them: their secret key stays there.

    What is signed is fixed (as by the console's `sigv4.js`): it cannot ask for anything
    else, and the header `x-gpudev-login` keeps what was signed for others from being of use here, and the reverse.
    """

    access_key_id: str
    session_token: str
    signed_at: str
    """As in X-Amz-Date: 20260120T183000Z."""
    signature: str
    """64 hexadecimal digits."""

    def headers(self, region: str) -> dict[str, str]:
        """What the request to STS of a region carries."""
        scope = f"{self.signed_at[:8]}/{region}/sts/aws4_request"
        signed = "host;x-amz-date;x-amz-security-token;x-gpudev-login"
        return {
            "Authorization": (
                f"AWS4-HMAC-SHA256 Credential={self.access_key_id}/{scope}, "
                f"SignedHeaders={signed}, Signature={self.signature}"
            ),
            "X-Amz-Date": self.signed_at,
            "X-Amz-Security-Token": self.session_token,
            "X-Gpudev-Login": "console",
        }

    def __repr__(self) -> str:
        return "SignedQuestion(...)"


class CallerIdentity(msgspec.Struct, frozen=True, kw_only=True):
    """What STS says about credentials."""

    account: str
    arn: str
    user_id: str
    """AROA...:session for a role session."""


class Person(msgspec.Struct, frozen=True, kw_only=True):
    """Who logs in; the first three make the user."""

    account: str
    role_id: str
    """AWS's immutable id of the role: a role made anew under an old name is another one."""
    session_name: str
    arn: str


class User(msgspec.Struct, frozen=True, kw_only=True):
    """A person who has logged in."""

    id: int
    username: str
    account: str
    role_id: str
    disabled_at: datetime | None


class SeenUser(User, frozen=True, kw_only=True):
    """A user as operators see them."""

    is_operator: bool
    """As of their last log-in."""
    created_at: datetime
    last_login_at: datetime


class UserState(msgspec.Struct, frozen=True, kw_only=True):
    """A user who was disabled or enabled."""

    user_id: int
    username: str
    disabled_at: datetime | None
    keys_revoked: int

    def audited(self) -> list[AuditObject]:
        """What was done was done to them."""
        return [AuditObject("user", str(self.user_id), self.username)]


def parse_user_id(text: str) -> int | None:
    """A user's id as it stands in a path; None: nobody can have it."""
    return int(text) if _USER_ID.fullmatch(text) else None


def parse_allowed_roles(text: str) -> tuple[AllowedRole, ...]:
    """Roles from a list of ARNs, joined by commas; one more at the end is taken for a slip.

    Raises:
        ValueError: It is empty, or an entry is not the ARN of an IAM role.
    """
    arns = [arn.strip() for arn in _BETWEEN_ARNS.split(text.strip().rstrip(","))]
    return tuple(_parse_role(arn) for arn in arns)


def admit(caller: CallerIdentity, allowed: Sequence[AllowedRole]) -> Person:
    """The person behind the credentials.

    Account, partition and name of the role must all be those of one allowed role: a name alone is free to everyone
    with an AWS account of their own.

    Raises:
        NotAnAllowedRole: A user, a root, a federated user, or a session of another role.
        UnusableSessionName: Its name has other characters than usernames may have.
    """
    session = _SESSION_ARN.fullmatch(caller.arn)
    ids = _ROLE_SESSION_ID.fullmatch(caller.user_id)
    if session is None or ids is None or caller.account != session["account"] or ids["session"] != session["session"]:
        raise NotAnAllowedRole(allowed)
    role = (session["partition"], session["account"], session["role"])
    if role not in [(candidate.partition, candidate.account, candidate.name) for candidate in allowed]:
        raise NotAnAllowedRole(allowed)
    if not _USERNAME.fullmatch(session["session"]):
        raise UnusableSessionName
    return Person(account=session["account"], role_id=ids["role_id"], session_name=session["session"], arn=caller.arn)


def parse_operators(text: str) -> tuple[str, ...]:
    """ARNs of role sessions from a list joined by commas; one that ends in `/*` means every session of its role.

    Raises:
        ValueError: An entry is not the ARN of a role session.
    """
    arns = tuple(arn.strip() for arn in _BETWEEN_ARNS.split(text.strip().rstrip(",")) if arn.strip())
    for arn in arns:
        if not _SESSION_ARN.fullmatch(arn):
            raise ValueError(
                f"'{arn}' is not the ARN of a role session (arn:aws:sts::<12 digits>:assumed-role/<role>/<name>)"
            )
    return arns


def is_operator(person: Person, operators: Sequence[str]) -> bool:
    """Whether the person is one of the operators: by the whole ARN, since a session's name alone is free to choose."""
    role = person.arn.rpartition("/")[0]
    return person.arn in operators or f"{role}/*" in operators


def _parse_role(arn: str) -> AllowedRole:
    match = _ROLE_ARN.fullmatch(arn)
    if match is None:
        raise ValueError(f"'{arn}' is not the ARN of an IAM role (arn:aws:iam::<12 digits>:role/<name>)")
    return AllowedRole(arn=arn, partition=match["partition"], account=match["account"], name=match["name"])
