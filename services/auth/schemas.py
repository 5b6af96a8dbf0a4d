"""What auth reads and answers, in the contract's key order."""

import re
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Annotated

import msgspec

from services.auth.domain.audit import AuditPage
from services.auth.domain.keys import ConsoleCode, IssuedKey, KeyPage, KeyTerms, RevokedKey
from services.auth.domain.roles import AwsCredentials, Person, SeenUser, SignedQuestion, UserState
from shared.api_key import key_prefix
from shared.contracts.auth import Identity
from shared.errors import InvalidInput, Problem
from shared.idempotency import Outcome
from shared.web.response import Answer
from shared.web.validation import Body, StructT

_FIELD_NAME = re.compile(r"[A-Za-z_]{1,32}")
_SPELLING = "Must be visible ASCII characters"
_VISIBLE = "^[!-~]*$(?!\\n)"

AccessKeyId = Annotated[
    str, msgspec.Meta(max_length=128, pattern=_VISIBLE, description=_SPELLING, examples=["ASIA..."])
]
SecretAccessKey = Annotated[str, msgspec.Meta(max_length=256, pattern=_VISIBLE, description=_SPELLING)]
ShownKey = Annotated[str, msgspec.Meta(examples=["gpudev_7hQ2mX9bLk_..."])]
KeyPrefix = Annotated[str, msgspec.Meta(examples=["gpudev_7hQ2mX9bLk"])]
Username = Annotated[str, msgspec.Meta(examples=["jschmidt"])]
SessionToken = Annotated[str, msgspec.Meta(max_length=12_288, pattern=_VISIBLE, description=_SPELLING)]


class AwsLoginRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """AWS credentials of a role session; used for one call and not stored."""

    aws_access_key_id: AccessKeyId
    aws_secret_access_key: SecretAccessKey
    aws_session_token: SessionToken | None = None
    """Every role session has one."""

    def credentials(self) -> AwsCredentials:
        """What AWS is asked about."""
        return AwsCredentials(
            access_key_id=self.aws_access_key_id,
            secret_access_key=self.aws_secret_access_key,
            session_token=self.aws_session_token or None,
        )

    def __repr__(self) -> str:
        return "AwsLoginRequest(...)"


class AwsSignedLoginRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The question to AWS whose the credentials are, signed: `GET /v1/auth/aws-signing` says what is signed."""

    aws_access_key_id: Annotated[
        str, msgspec.Meta(pattern="^[A-Z0-9]{16,128}$(?!\\n)", examples=["ASIAIOSFODNN7EXAMPLE"])
    ]
    aws_session_token: Annotated[str, msgspec.Meta(min_length=1, max_length=12_288, pattern=_VISIBLE)]
    signed_at: Annotated[str, msgspec.Meta(pattern="^[0-9]{8}T[0-9]{6}Z$(?!\\n)", examples=["20260120T183000Z"])]
    signature: Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$(?!\\n)")]

    def question(self) -> SignedQuestion:
        """What AWS is asked."""
        return SignedQuestion(
            access_key_id=self.aws_access_key_id,
            session_token=self.aws_session_token,
            signed_at=self.signed_at,
            signature=self.signature,
        )

    def __repr__(self) -> str:
        return "AwsSignedLoginRequest(...)"


class AwsSigning(Answer, frozen=True, kw_only=True):
    """What is signed by AWS Signature Version 4: `POST /` with this body.

    The signed headers are `host`, `x-amz-date`, `x-amz-security-token`, `x-gpudev-login`, and no others.
    """

    host: Annotated[str, msgspec.Meta(examples=["sts.us-east-1.amazonaws.com"])]
    region: Annotated[str, msgspec.Meta(examples=["us-east-1"])]
    service: str = "sts"
    body: str = "Action=GetCallerIdentity&Version=2011-06-15"
    x_gpudev_login: str = "console"
    time: datetime
    """By which to sign, since AWS refuses what a clock that is minutes off has dated."""


class LoginBody(Body[StructT]):
    """A body of which any part may be a secret, even the name of a field when somebody has mixed them up."""

    def decode_bytes(self, value: bytes) -> StructT:
        """The body as the handler's struct.

        Raises:
            InvalidInput: With all problems, repeating nothing but what looks like the name of a field.
        """
        try:
            return self.decode(value)
        except InvalidInput as error:
            problems, more = [_without_secrets(problem) for problem in error.problems], error.more
        raise InvalidInput(problems, more)


class AwsLoginResponse(Answer, frozen=True, kw_only=True):
    api_key: ShownKey
    """Shown only here; send it as `Authorization: Bearer <api_key>`."""
    key_prefix: KeyPrefix
    """Prefix of the key, by which /v1/keys names it."""
    user_id: int
    username: Username
    """Name of the role session."""
    aws_arn: str
    expires_at: datetime
    ttl_hours: int
    """Lifetime of the key, in hours."""

    def __repr__(self) -> str:
        return f"AwsLoginResponse({self.key_prefix}_...)"


class RotateResponse(Answer, frozen=True, kw_only=True):
    api_key: ShownKey
    """Shown only here; the old key keeps working for 60 s."""
    key_prefix: KeyPrefix
    user_id: int
    username: Username
    expires_at: datetime
    """Never later than the end of the session that began with the log-in."""

    def __repr__(self) -> str:
        return f"RotateResponse({self.key_prefix}_...)"


class IdentityResponse(Answer, frozen=True, kw_only=True):
    user_id: int
    username: Username
    key_prefix: KeyPrefix
    expires_at: datetime
    """End of the key of this request."""
    is_operator: bool


class UserItem(Answer, frozen=True, kw_only=True):
    user_id: int
    username: Username
    account: str
    """AWS account id."""
    is_operator: bool
    """As of the last log-in."""
    created_at: datetime
    """First log-in."""
    last_login_at: datetime
    disabled_at: datetime | None


class UserListResponse(msgspec.Struct, frozen=True, kw_only=True):
    users: list[UserItem]
    """Who logged in last comes first."""
    total: int
    limit: int
    offset: int


class UserActionResponse(Answer, frozen=True, kw_only=True):
    user_id: int
    username: Username
    action: str
    """`disable` or `enable`."""
    status: str
    """`disabled` or `enabled`."""
    message: str
    disabled_at: datetime | None
    keys_revoked: int


class ConsoleCodeResponse(Answer, frozen=True, kw_only=True):
    code: str
    """Shown only here; good for one log-in of the console."""
    path: Annotated[str, msgspec.Meta(examples=["/console#code=..."])]
    """Where it is used: to be opened in a browser, behind the address of the API."""
    expires_at: datetime

    def __repr__(self) -> str:
        return "ConsoleCodeResponse(...)"


class ConsoleLoginRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A one-time code of the console."""

    code: Annotated[str, msgspec.Meta(max_length=128, pattern=_VISIBLE, description=_SPELLING)]

    def __repr__(self) -> str:
        return "ConsoleLoginRequest(...)"


class ConsoleLoginResponse(Answer, frozen=True, kw_only=True):
    api_key: ShownKey
    """Shown only here."""
    key_prefix: KeyPrefix
    user_id: int
    username: Username
    expires_at: datetime
    """Never later than the end of the session of the key that asked for the code."""

    def __repr__(self) -> str:
        return f"ConsoleLoginResponse({self.key_prefix}_...)"


class KeyItem(Answer, frozen=True, kw_only=True):
    key_prefix: KeyPrefix
    created_at: datetime
    expires_at: datetime
    last_used: datetime | None
    """To within a minute; null until the key has been used."""
    current: bool
    """Whether it is the key of this request."""


class KeyListResponse(msgspec.Struct, frozen=True, kw_only=True):
    keys: list[KeyItem]
    """Your keys that are still valid, newest first."""
    total: int
    limit: int
    offset: int


class RevokeResponse(Answer, frozen=True, kw_only=True):
    key_prefix: KeyPrefix
    status: str
    """Always `revoked`."""
    revoked_at: datetime


class AuditItem(Answer, frozen=True, kw_only=True):
    at: datetime
    action: str
    """The operation id of a route, or a command of `gpudev-admin` such as `disable_user`."""
    user_id: int | None
    """Who did it; null: an administrator with a shell."""
    username: str | None
    key_prefix: str | None
    """Of the API key that they came with; null when they logged in."""
    address: str | None
    """Where they came from, as the first trusted proxy saw it."""
    object_kind: str
    """job, disk, key, user or webhook; of `gpudev-admin` also event, volume, snapshot, pods and the like."""
    object_id: str
    object_name: str | None
    """At that time; null when it has none."""
    request_id: str | None
    service: str
    """Which wrote it."""


class Audit(msgspec.Struct, frozen=True, kw_only=True):
    entries: list[AuditItem]
    """Newest first."""
    next: str | None
    """`before` of the next page; null when these are the oldest."""


def logged_in(person: Person, issued: IssuedKey, terms: KeyTerms) -> AwsLoginResponse:
    """Answer of a log-in."""
    return AwsLoginResponse(
        api_key=issued.text,
        key_prefix=issued.prefix,
        user_id=issued.user_id,
        username=issued.username,
        aws_arn=person.arn,
        expires_at=issued.expires_at,
        ttl_hours=min(terms.ttl, terms.session) // timedelta(hours=1),
    )


def identity_answer(identity: Identity) -> IdentityResponse:
    """Answer to who asks whose key it is."""
    return IdentityResponse(
        user_id=identity.user_id,
        username=identity.username,
        key_prefix=key_prefix(identity.key_id),
        expires_at=identity.expires_at,
        is_operator=identity.is_operator,
    )


def user_list(users: Sequence[SeenUser], total: int, *, limit: int, offset: int) -> UserListResponse:
    """Answer of a listing of users."""
    items = [
        UserItem(
            user_id=user.id,
            username=user.username,
            account=user.account,
            is_operator=user.is_operator,
            created_at=user.created_at,
            last_login_at=user.last_login_at,
            disabled_at=user.disabled_at,
        )
        for user in users
    ]
    return UserListResponse(users=items, total=total, limit=limit, offset=offset)


def user_disabled(outcome: Outcome[UserState]) -> Outcome[UserActionResponse]:
    """Answer of a user's disabling."""
    user = outcome.answer
    message = f"User '{user.username}' is disabled (keys revoked: {user.keys_revoked}); open jobs are cancelled"
    return Outcome(_user_action(user, "disable", "disabled", message), outcome.replayed)


def user_enabled(outcome: Outcome[UserState]) -> Outcome[UserActionResponse]:
    """Answer of a user's enabling."""
    user = outcome.answer
    message = f"User '{user.username}' is enabled and may log in again"
    return Outcome(_user_action(user, "enable", "enabled", message), outcome.replayed)


def _user_action(user: UserState, action: str, status: str, message: str) -> UserActionResponse:
    return UserActionResponse(
        user_id=user.user_id,
        username=user.username,
        action=action,
        status=status,
        message=message,
        disabled_at=user.disabled_at,
        keys_revoked=user.keys_revoked,
    )


def console_code(outcome: Outcome[ConsoleCode]) -> Outcome[ConsoleCodeResponse]:
    """Answer of a request for a code."""
    code = outcome.answer
    answer = ConsoleCodeResponse(code=code.text, path=f"/console#code={code.text}", expires_at=code.expires_at)
    return Outcome(answer, outcome.replayed)


def console_login(issued: IssuedKey) -> ConsoleLoginResponse:
    """Answer of a log-in by code."""
    return ConsoleLoginResponse(
        api_key=issued.text,
        key_prefix=issued.prefix,
        user_id=issued.user_id,
        username=issued.username,
        expires_at=issued.expires_at,
    )


def rotated(outcome: Outcome[IssuedKey]) -> Outcome[RotateResponse]:
    """Answer of a rotation."""
    issued = outcome.answer
    answer = RotateResponse(
        api_key=issued.text,
        key_prefix=issued.prefix,
        user_id=issued.user_id,
        username=issued.username,
        expires_at=issued.expires_at,
    )
    return Outcome(answer, outcome.replayed)


def revoked(outcome: Outcome[RevokedKey]) -> Outcome[RevokeResponse]:
    """Answer of a revocation."""
    key = outcome.answer
    answer = RevokeResponse(key_prefix=key_prefix(key.key_id), status="revoked", revoked_at=key.revoked_at)
    return Outcome(answer, outcome.replayed)


def key_list(page: KeyPage, *, limit: int, offset: int, current: str) -> KeyListResponse:
    """Answer of a listing; `current` is the id of the key that asked."""
    keys = [
        KeyItem(
            key_prefix=key_prefix(key.key_id),
            created_at=key.created_at,
            expires_at=key.ends_at,
            last_used=key.last_used_at,
            current=key.key_id == current,
        )
        for key in page.keys
    ]
    return KeyListResponse(keys=keys, total=page.total, limit=limit, offset=offset)


def audit_page(page: AuditPage) -> Audit:
    """Answer of a question about the audit."""
    items = [
        AuditItem(
            service=one.service,
            **{name: getattr(one.entry, name) for name in AuditItem.__struct_fields__ if name != "service"},
        )
        for one in page.entries
    ]
    return Audit(entries=items, next=None if page.next is None else str(page.next))


def _without_secrets(problem: Problem) -> Problem:
    loc = tuple(part if isinstance(part, int) or _FIELD_NAME.fullmatch(part) else "***" for part in problem.loc)
    return Problem(problem.type, loc, problem.msg)
