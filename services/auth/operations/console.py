"""Hand a log-in on to a browser: a one-time code for who has a key, and a key for who has the code."""

from datetime import datetime
from functools import partial

from services.auth.context import Context
from services.auth.domain.keys import (
    CONSOLE_CODE_LIFE,
    ConsoleCode,
    ConsoleCodeRefused,
    IssuedKey,
    StoredKey,
    judge_key,
)
from services.auth.operations.record import insert_key, issued_event, lock_user, record_events
from services.auth.storage.api_keys import FIND_OWN_KEY
from services.auth.storage.console_codes import INSERT_CONSOLE_CODE, USE_CONSOLE_CODE
from shared.api_key import ApiKey, key_prefix
from shared.audit import record_act
from shared.contracts.audit import AuditObject
from shared.contracts.auth import Identity
from shared.database import Row, Transaction, to_struct
from shared.errors import GpuDevError, Unauthenticated
from shared.idempotency import IdempotencyKey, Outcome, idempotent


async def make_console_code(
    context: Context, *, identity: Identity, new_code: str, idempotency_key: IdempotencyKey | None, now: datetime
) -> Outcome[ConsoleCode]:
    """Give a code that can be exchanged for a key, once and within 60 s. Only a keyed hash of it is stored.

    Raises:
        Unauthenticated: The key has ended since it was checked.
        UserDisabled: So was the user.
    """
    effect = partial(_make, context, identity=identity, new_code=new_code, now=now)
    audited = [AuditObject("key", key_prefix(identity.key_id))]
    return await idempotent(
        context, effect, key=idempotency_key, answer_type=ConsoleCode, now=now, audit=lambda _: audited
    )


async def _make(
    context: Context, transaction: Transaction, *, identity: Identity, new_code: str, now: datetime
) -> ConsoleCode:
    await lock_user(transaction, identity.user_id)
    await _find_good_key(transaction, key_id=identity.key_id, user_id=identity.user_id, now=now)
    code = ConsoleCode(text=new_code, expires_at=now + CONSOLE_CODE_LIFE)
    await transaction.execute(
        INSERT_CONSOLE_CODE,
        hash=context.hasher.console_code(new_code),
        key_id=identity.key_id,
        user_id=identity.user_id,
        expires_at=code.expires_at,
    )
    return code


async def use_console_code(context: Context, *, code: str, new_key: ApiKey, now: datetime) -> IssuedKey:
    """Exchange a code for a key in the session of the key that asked for it, which must still be good.

    The code is gone in the transaction that writes the key, so of two at once one gets a key.

    Raises:
        ConsoleCodeRefused: Unknown, used or expired, or of a key that has ended or a user who is disabled.
    """
    async with context.database.transaction() as transaction:
        used = await transaction.fetch_one(USE_CONSOLE_CODE, hash=context.hasher.console_code(code), now=now)
        if used is None:
            raise ConsoleCodeRefused
        try:
            user = await lock_user(transaction, used["user_id"])
            asker = await _find_good_key(transaction, key_id=used["key_id"], user_id=used["user_id"], now=now)
        except GpuDevError as error:
            raise ConsoleCodeRefused from error
        issued = await insert_key(
            context,
            transaction,
            new_key=new_key,
            user_id=user["id"],
            username=user["username"],
            session_ends_at=asker["session_ends_at"],
            now=now,
        )
        await record_events(transaction, context.outbox, user, [issued_event(issued, new_key)], now=now)
        await record_act(transaction, issued.audited(), now=now, user_id=issued.user_id, username=issued.username)
    return issued


async def _find_good_key(transaction: Transaction, *, key_id: str, user_id: int, now: datetime) -> Row:
    row = await transaction.fetch_one(FIND_OWN_KEY, key_id=key_id, user_id=user_id)
    if row is None:
        raise Unauthenticated
    judge_key(to_struct(row, StoredKey), now)
    return row
