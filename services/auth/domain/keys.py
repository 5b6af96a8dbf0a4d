"""How long keys live and who they stand for."""

from datetime import datetime, timedelta
from enum import StrEnum

import msgspec

from shared.api_key import key_prefix
from shared.contracts.audit import AuditObject
from shared.contracts.auth import Identity
from shared.errors import Forbidden, Unauthenticated

ROTATION_GRACE = timedelta(seconds=60)
"""How long the old key lives on after a rotation, for requests and clients that still hold it."""


class UserDisabled(Forbidden):
    def __init__(self) -> None:
        super().__init__("This user is disabled")


CONSOLE_CODE_LIFE = timedelta(seconds=60)
"""How long a one-time code of the console can be exchanged."""


class ConsoleCodeRefused(Forbidden):
    """Unknown, used or expired: nobody can tell which."""

    def __init__(self) -> None:
        super().__init__("This link has been used or has expired: run `gpudev console` again")


class RevocationReason(StrEnum):
    ROTATED = "rotated"
    REVOKED = "revoked"
    USER_DISABLED = "user_disabled"


class KeyTerms(msgspec.Struct, frozen=True):
    """For how long keys are given."""

    ttl: timedelta
    """Life of one key."""
    session: timedelta
    """From the AWS proof to the end of every key that descends from it."""


class StoredKey(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a key; never the key."""

    key_id: str
    user_id: int
    username: str
    expires_at: datetime
    dies_at: datetime | None
    """When a revocation takes effect; None: not revoked."""
    revoked_reason: str | None
    user_disabled: bool
    is_operator: bool

    @property
    def ends_at(self) -> datetime:
        """From when on it is refused."""
        return self.expires_at if self.dies_at is None else min(self.expires_at, self.dies_at)


class IssuedKey(msgspec.Struct, frozen=True, kw_only=True):
    """A key and whose it is: the only time that the key is seen."""

    text: str
    prefix: str
    user_id: int
    username: str
    expires_at: datetime

    def audited(self) -> list[AuditObject]:
        """What was made: the prefix is public."""
        return [AuditObject("key", self.prefix)]

    def __repr__(self) -> str:
        return f"IssuedKey({self.prefix}_...)"


class ConsoleCode(msgspec.Struct, frozen=True, kw_only=True):
    """Good for one key, once."""

    text: str
    expires_at: datetime

    def __repr__(self) -> str:
        return "ConsoleCode(...)"


class RevokedKey(msgspec.Struct, frozen=True, kw_only=True):
    key_id: str
    revoked_at: datetime
    """When it died."""

    def audited(self) -> list[AuditObject]:
        """What the request was about."""
        return [AuditObject("key", key_prefix(self.key_id))]


class ListedKey(msgspec.Struct, frozen=True, kw_only=True):
    key_id: str
    created_at: datetime
    ends_at: datetime
    last_used_at: datetime | None


class KeyPage(msgspec.Struct, frozen=True, kw_only=True):
    keys: list[ListedKey]
    total: int


def session_end(terms: KeyTerms, proved_at: datetime) -> datetime:
    """The absolute end of a login, in whole seconds: no rotation goes past it."""
    return whole_second(proved_at) + terms.session


def key_end(terms: KeyTerms, now: datetime, session_ends_at: datetime) -> datetime:
    """When a key that is issued now expires, in whole seconds, as the answer has it."""
    return min(whole_second(now) + terms.ttl, session_ends_at)


def whole_second(moment: datetime) -> datetime:
    """`moment` without its fraction of a second: never later than it."""
    return moment.replace(microsecond=0)


def sooner(dies_at: datetime | None, wanted: datetime) -> datetime:
    """A revocation can be brought forward, never put off."""
    return wanted if dies_at is None else min(dies_at, wanted)


def judge_key(key: StoredKey, now: datetime) -> Identity:
    """Whom the key stands for.

    Raises:
        Unauthenticated: It has expired, or it was revoked by its owner or a rotation.
        UserDisabled: Its owner is.
    """
    ended = key.ends_at <= now
    if key.expires_at <= now or (ended and key.revoked_reason != RevocationReason.USER_DISABLED):
        raise Unauthenticated
    if key.user_disabled:
        raise UserDisabled
    if ended:
        raise Unauthenticated
    return Identity(
        user_id=key.user_id,
        username=key.username,
        key_id=key.key_id,
        expires_at=key.ends_at,
        is_operator=key.is_operator,
    )
