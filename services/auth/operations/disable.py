"""Refuse a user, and let them log in again: for operators."""

from datetime import datetime

from services.auth.context import Context
from services.auth.domain.keys import RevocationReason
from services.auth.operations.record import record_events, revoked_event
from services.auth.storage.api_keys import REVOKE_KEYS_OF_USER
from services.auth.storage.users import LOCK_USER, SET_DISABLED
from shared.audit import record_act
from shared.contracts.audit import AuditObject
from shared.contracts.auth import AuthEvent, UserDisabled, UserEnabled
from shared.database import Row, Transaction
from shared.errors import NotFound


async def disable_user(context: Context, *, user_id: int, now: datetime) -> int:
    """Refuse the user from now on, and revoke their keys; the number of keys revoked. Again changes nothing.

    Raises:
        NotFound: There is no such user.
    """
    async with context.database.transaction() as transaction:
        user = await _lock_any_user(transaction, user_id)
        events: list[AuthEvent] = []
        if user["disabled_at"] is None:
            await transaction.execute(SET_DISABLED, user_id=user_id, disabled_at=now)
            events.append(UserDisabled(user_id=user_id, disabled_at=now))
        reason = RevocationReason.USER_DISABLED
        rows = await transaction.fetch_all(REVOKE_KEYS_OF_USER, user_id=user_id, reason=reason, now=now)
        events += [revoked_event(user_id, row["key_id"], reason, now) for row in rows]
        await record_events(transaction, context.outbox, user, events, now=now)
        await record_act(transaction, [_audited(user)], now=now)
    return len(rows)


async def enable_user(context: Context, *, user_id: int, now: datetime) -> None:
    """Let a disabled user log in again; the old keys stay dead. Again changes nothing.

    Raises:
        NotFound: There is no such user.
    """
    async with context.database.transaction() as transaction:
        user = await _lock_any_user(transaction, user_id)
        if user["disabled_at"] is not None:
            await transaction.execute(SET_DISABLED, user_id=user_id, disabled_at=None)
            await record_events(transaction, context.outbox, user, [UserEnabled(user_id=user_id)], now=now)
        await record_act(transaction, [_audited(user)], now=now)


async def _lock_any_user(transaction: Transaction, user_id: int) -> Row:
    user = await transaction.fetch_one(LOCK_USER, user_id=user_id)
    if user is None:
        raise NotFound("User")
    return user


def _audited(user: Row) -> AuditObject:
    return AuditObject("user", str(user["id"]), user["username"])
