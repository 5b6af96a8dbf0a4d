"""The one place where keys are written, and where a user's events are: each raises the user's version by one."""

from collections.abc import Sequence
from datetime import datetime

from services.auth.context import Context
from services.auth.domain.keys import IssuedKey, RevocationReason, StoredKey, UserDisabled, key_end, sooner
from services.auth.storage.api_keys import INSERT_KEY, REVOKE_KEY
from services.auth.storage.users import LOCK_USER, SET_VERSION
from shared.api_key import ApiKey, key_prefix
from shared.contracts.auth import AuthEvent, KeyIssued, KeyRevoked
from shared.database import Row, Transaction
from shared.errors import Unauthenticated
from shared.messaging import Draft, record_event
from shared.messaging.outbox import Wakes


async def lock_user(transaction: Transaction, user_id: int) -> Row:
    """The row of a user who acts with a key; it stays locked until the transaction ends.

    Raises:
        Unauthenticated: There is no such user.
        UserDisabled: The user has been disabled since the key was checked.
    """
    user = await transaction.fetch_one(LOCK_USER, user_id=user_id)
    if user is None:
        raise Unauthenticated
    if user["disabled_at"] is not None:
        raise UserDisabled
    return user


async def insert_key(
    context: Context,
    transaction: Transaction,
    *,
    new_key: ApiKey,
    user_id: int,
    username: str,
    session_ends_at: datetime,
    now: datetime,
) -> IssuedKey:
    """Write a new key of a session, whose end it does not outlive."""
    expires_at = key_end(context.terms, now, session_ends_at)
    await transaction.execute(
        INSERT_KEY,
        key_id=new_key.key_id,
        user_id=user_id,
        hash=context.hasher.digest(new_key.hash),
        created_at=now,
        session_ends_at=session_ends_at,
        expires_at=expires_at,
    )
    return IssuedKey(
        text=new_key.text, prefix=new_key.prefix, user_id=user_id, username=username, expires_at=expires_at
    )


async def end_key(
    transaction: Transaction, row_id: int, key: StoredKey, *, dies_at: datetime, reason: RevocationReason
) -> list[AuthEvent]:
    """Bring the key's end forward; no event when it ends sooner anyway."""
    dies_at = sooner(key.dies_at, dies_at)
    if dies_at == key.dies_at:
        return []
    await transaction.execute(REVOKE_KEY, key=row_id, dies=dies_at, reason=reason)
    return [revoked_event(key.user_id, key.key_id, reason, dies_at)]


async def record_events(
    transaction: Transaction, outbox: Wakes, user: Row, events: Sequence[AuthEvent], *, now: datetime
) -> None:
    """Write the events of a user whose row is locked, and raise the user's version by their number."""
    if events:
        last_version = user["version"] + len(events)
        await transaction.execute(SET_VERSION, user_id=user["id"], new_version=last_version)
        await record_counted_events(transaction, outbox, events, last_version=last_version, now=now)


async def record_counted_events(
    transaction: Transaction, outbox: Wakes, events: Sequence[AuthEvent], *, last_version: int, now: datetime
) -> None:
    """Write events that the user's version counts already; it is `last_version` after the last of them."""
    first_version = last_version - len(events) + 1
    for version, event in enumerate(events, start=first_version):
        await record_event(transaction, Draft(data=event, version=version, occurred_at=now), outbox)


def issued_event(issued: IssuedKey, key: ApiKey) -> KeyIssued:
    """The event of a new key."""
    return KeyIssued(user_id=issued.user_id, key_id=key.key_id, key_prefix=issued.prefix, expires_at=issued.expires_at)


def revoked_event(user_id: int, key_id: str, reason: RevocationReason, dies_at: datetime) -> KeyRevoked:
    """The event of a key whose end was brought forward."""
    return KeyRevoked(
        user_id=user_id, key_id=key_id, key_prefix=key_prefix(key_id), reason=reason.value, dies_at=dies_at
    )
