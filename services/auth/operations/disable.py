"""Refuse a user, and let them log in again: for operators."""

from collections.abc import Awaitable, Callable
from datetime import datetime
from functools import partial

from services.auth.context import Context
from services.auth.domain.keys import RevocationReason
from services.auth.domain.roles import UserState, parse_user_id
from services.auth.operations.record import record_events, revoked_event
from services.auth.storage.api_keys import REVOKE_KEYS_OF_USER
from services.auth.storage.users import LOCK_USER, SET_DISABLED
from shared.contracts.auth import AuthEvent, Identity, UserDisabled, UserEnabled
from shared.database import Row, Transaction
from shared.errors import Conflict, NotFound
from shared.idempotency import IdempotencyKey, Outcome, idempotent
from shared.operators import check_operator

_Change = Callable[..., Awaitable[UserState]]


class OwnUser(Conflict):
    """Whoever disables themselves cannot take it back."""

    def __init__(self) -> None:
        super().__init__("This is your own user: ask another operator")


async def disable_user(
    context: Context, *, user_id: int, now: datetime, key: IdempotencyKey | None = None
) -> Outcome[UserState]:
    """Refuse the user from now on, and revoke their keys. Again changes nothing.

    Raises:
        NotFound: There is no such user.
    """
    return await _change(context, _disable, user_id=user_id, now=now, key=key)


async def enable_user(
    context: Context, *, user_id: int, now: datetime, key: IdempotencyKey | None = None
) -> Outcome[UserState]:
    """Let a disabled user log in again; the old keys stay dead. Again changes nothing.

    Raises:
        NotFound: There is no such user.
    """
    return await _change(context, _enable, user_id=user_id, now=now, key=key)


def user_for_operator(asker: Identity, user_id: str) -> int:
    """The user whom an operator means to disable or enable.

    Raises:
        OperatorsOnly: The asker is none; says nothing about the user.
        NotFound: Nobody can have this id.
        OwnUser: The asker means themselves.
    """
    check_operator(asker, "disable and enable users")
    meant = parse_user_id(user_id)
    if meant is None:
        raise NotFound("User")
    if meant == asker.user_id:
        raise OwnUser
    return meant


async def _change(
    context: Context, change: _Change, *, user_id: int, now: datetime, key: IdempotencyKey | None
) -> Outcome[UserState]:
    effect = partial(change, context, user_id=user_id, now=now)
    return await idempotent(context, effect, key=key, answer_type=UserState, now=now, audit=UserState.audited)


async def _disable(context: Context, transaction: Transaction, *, user_id: int, now: datetime) -> UserState:
    user = await _lock_any_user(transaction, user_id)
    events: list[AuthEvent] = []
    if user["disabled_at"] is None:
        await transaction.execute(SET_DISABLED, user_id=user_id, disabled_at=now)
        events.append(UserDisabled(user_id=user_id, disabled_at=now))
    reason = RevocationReason.USER_DISABLED
    rows = await transaction.fetch_all(REVOKE_KEYS_OF_USER, user_id=user_id, reason=reason, now=now)
    events += [revoked_event(user_id, row["key_id"], reason, now) for row in rows]
    await record_events(transaction, context.outbox, user, events, now=now)
    return UserState(
        user_id=user_id,
        username=user["username"],
        disabled_at=user["disabled_at"] or now,
        keys_revoked=len(rows),
    )


async def _enable(context: Context, transaction: Transaction, *, user_id: int, now: datetime) -> UserState:
    user = await _lock_any_user(transaction, user_id)
    if user["disabled_at"] is not None:
        await transaction.execute(SET_DISABLED, user_id=user_id, disabled_at=None)
        await record_events(transaction, context.outbox, user, [UserEnabled(user_id=user_id)], now=now)
    return UserState(user_id=user_id, username=user["username"], disabled_at=None, keys_revoked=0)


async def _lock_any_user(transaction: Transaction, user_id: int) -> Row:
    user = await transaction.fetch_one(LOCK_USER, user_id=user_id)
    if user is None:
        raise NotFound("User")
    return user
