"""Let a key die at once."""

from datetime import datetime
from functools import partial

from services.auth.context import Context
from services.auth.domain.keys import RevocationReason, RevokedKey, StoredKey
from services.auth.operations.record import end_key, lock_user, record_events
from services.auth.storage.api_keys import FIND_OWN_KEY
from shared.database import Transaction, to_struct
from shared.errors import NotFound
from shared.idempotency import IdempotencyKey, Outcome, idempotent


async def revoke_key(
    context: Context, *, user_id: int, key_id: str, idempotency_key: IdempotencyKey | None, now: datetime
) -> Outcome[RevokedKey]:
    """Let one of the user's own keys die at once. For a key that has ended already, the answer says when.

    Raises:
        NotFound: There is no such key, or it is someone else's.
    """
    effect = partial(_revoke, context, user_id=user_id, key_id=key_id, now=now)
    return await idempotent(
        context, effect, key=idempotency_key, answer_type=RevokedKey, now=now, audit=RevokedKey.audited
    )


async def _revoke(
    context: Context, transaction: Transaction, *, user_id: int, key_id: str, now: datetime
) -> RevokedKey:
    user = await lock_user(transaction, user_id)
    row = await transaction.fetch_one(FIND_OWN_KEY, key_id=key_id, user_id=user_id)
    if row is None:
        raise NotFound("API key")
    key = to_struct(row, StoredKey)
    if key.ends_at <= now:
        return RevokedKey(key_id=key_id, revoked_at=key.ends_at)
    events = await end_key(transaction, row["id"], key, dies_at=now, reason=RevocationReason.REVOKED)
    await record_events(transaction, context.outbox, user, events, now=now)
    return RevokedKey(key_id=key_id, revoked_at=now)
