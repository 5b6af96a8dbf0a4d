"""Auth's events and its RPC."""

from datetime import datetime
from typing import ClassVar

import msgspec

from shared.contracts.events import EventData

VERIFY_SUBJECT = "gpudev.rpc.auth.verify"


class AuthEvent(EventData, frozen=True, kw_only=True):
    """An event about a user; the entity is the user."""

    DOMAIN: ClassVar[str] = "auth"
    user_id: int

    @property
    def entity_id(self) -> str:
        """The user's id."""
        return str(self.user_id)


class UserCreated(AuthEvent, frozen=True, kw_only=True):
    EVENT: ClassVar[str] = "user_created"
    username: str
    account: str
    """AWS account id, 12 digits."""


class KeyIssued(AuthEvent, frozen=True, kw_only=True):
    EVENT: ClassVar[str] = "key_issued"
    key_id: str
    """Public part of the key; the secret part is nowhere but with its owner."""
    key_prefix: str
    expires_at: datetime


class KeyRevoked(AuthEvent, frozen=True, kw_only=True):
    EVENT: ClassVar[str] = "key_revoked"
    key_id: str
    key_prefix: str
    reason: str
    """rotated, revoked or user_disabled."""
    dies_at: datetime
    """From when on the key is refused: at once, or 60 s later when it was rotated."""


class UserDisabled(AuthEvent, frozen=True, kw_only=True):
    """An operator has disabled the user: the keys are revoked, and jobs end."""

    EVENT: ClassVar[str] = "user_disabled"
    disabled_at: datetime


class UserEnabled(AuthEvent, frozen=True, kw_only=True):
    """A disabled user may log in again; the old keys stay dead."""

    EVENT: ClassVar[str] = "user_enabled"


class VerifyRequest(msgspec.Struct, frozen=True):
    key_hash: str
    """Lower-case hexadecimal SHA-256 of the whole key."""


class Identity(msgspec.Struct, frozen=True, kw_only=True):
    """Who a request comes from."""

    user_id: int
    """Integer id, the owner in every table."""
    username: str
    """Role session name."""
    key_id: str
    expires_at: datetime
    """End of the key."""
    is_operator: bool = False
    """May do what is the operators': set the priority of any job, and cancel it."""


class VerifyReply(msgspec.Struct, frozen=True, kw_only=True):
    """Exactly one of the two is set."""

    identity: Identity | None = None
    refusal: str | None = None
    """unauthenticated or forbidden."""
