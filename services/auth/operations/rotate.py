"""Give a new key for an old one."""

from datetime import datetime
from functools import partial

from services.auth.context import Context
from services.auth.domain.keys import ROTATION_GRACE, IssuedKey, RevocationReason, StoredKey, judge_key
from services.auth.operations.record import end_key, insert_key, issued_event, lock_user, record_events
from services.auth.storage.api_keys import FIND_OWN_KEY
from shared.api_key import ApiKey
from shared.contracts.auth import AuthEvent, Identity
from shared.database import Transaction, to_struct
from shared.errors import Unauthenticated
from shared.idempotency import IdempotencyKey, Outcome, idempotent


async def rotate_key(
    context: Context, *, identity: Identity, new_key: ApiKey, idempotency_key: IdempotencyKey | None, now: datetime
) -> Outcome[IssuedKey]:
    """Give a new key for the one that was shown, in the same session; the old one dies 60 s later.

    An old key that is shown again within those 60 s gets another new key, and dies no later.

    Raises:
        Unauthenticated: The key has ended since it was checked.
        UserDisabled: So was the user.
    """
    effect = partial(_rotate, context, identity=identity, new_key=new_key, now=now)
    return await idempotent(
        context, effect, key=idempotency_key, answer_type=IssuedKey, now=now, audit=IssuedKey.audited
    )


async def _rotate(
    context: Context, transaction: Transaction, *, identity: Identity, new_key: ApiKey, now: datetime
) -> IssuedKey:
    user = await lock_user(transaction, identity.user_id)
    row = await transaction.fetch_one(FIND_OWN_KEY, key_id=identity.key_id, user_id=identity.user_id)
    if row is None:
        raise Unauthenticated
    old = to_struct(row, StoredKey)
    judge_key(old, now)
    issued = await insert_key(
        context,
        transaction,
        new_key=new_key,
        user_id=identity.user_id,
        username=identity.username,
        session_ends_at=row["session_ends_at"],
        now=now,
    )
    events: list[AuthEvent] = [issued_event(issued, new_key)]
    events += await end_key(transaction, row["id"], old, dies_at=now + ROTATION_GRACE, reason=RevocationReason.ROTATED)
    await record_events(transaction, context.outbox, user, events, now=now)
    return issued
