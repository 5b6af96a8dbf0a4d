"""Idempotency keys: a repeated request gets the first answer again and has no second effect.

The record is written in the transaction of the effect
(https://datatracker.ietf.org/doc/draft-ietf-httpapi-idempotency-key-header/). Answers are encrypted at rest: some hold
secrets, such as a new API key.
"""

import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Generic, Protocol, TypeVar

import msgspec
import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from shared.audit import record_act
from shared.contracts.audit import AuditObject
from shared.database import Database, Executor, Statement, Transaction
from shared.database.locks import takes_text_lock, try_text_lock
from shared.database.purge import delete_some, purge
from shared.database.tables import idempotency_keys
from shared.encryption import Cipher
from shared.errors import Conflict, IdempotencyMismatch, InvalidInput, Problem

AnswerT = TypeVar("AnswerT", bound=msgspec.Struct)

RETENTION = timedelta(hours=24)
_VISIBLE = re.compile(r"[\x21-\x7e]{1,255}")

_TRY_LOCK = try_text_lock()
_FIND = Statement(
    sa.select(idempotency_keys.c.fingerprint, idempotency_keys.c.answer).where(
        idempotency_keys.c.user_id == sa.bindparam("user_id"),
        idempotency_keys.c.key == sa.bindparam("key"),
        idempotency_keys.c.created_at > sa.bindparam("since"),
    )
)
_FORGET = Statement(
    sa.delete(idempotency_keys).where(
        idempotency_keys.c.user_id == sa.bindparam("user_id"), idempotency_keys.c.key == sa.bindparam("key")
    )
)
_STORE = Statement(sa.insert(idempotency_keys).values({c.name: sa.bindparam(c.name) for c in idempotency_keys.c}))
_PURGE = delete_some(idempotency_keys, idempotency_keys.c.created_at < sa.bindparam("before"))


RECORDED: Mapping[str, Any] = {
    "key": idempotency_keys.c.key.type,
    "fingerprint": idempotency_keys.c.fingerprint.type,
    "sealed_answer": idempotency_keys.c.answer.type,
}
"""Columns of `recorded_columns`, with their types."""


def records_of(given: sa.CTE) -> tuple[sa.CTE, sa.ColumnElement[bool]]:
    """For a statement that makes changes and records the idempotency keys that they came with.

    Args:
        given: The changes, with `user_id`, `created_at` and the columns of `recorded_columns`.

    Returns:
        What records the keys that are free, and whether a change of `given` may be made: it has no key, or a free one.
        Those that may not are for `idempotent`, which knows why.
    """
    free = sa.and_(given.c.key.is_not(None), takes_text_lock(given.c.key, given.c.user_id))
    recorded = (
        insert(idempotency_keys)
        .from_select(
            ["user_id", "key", "fingerprint", "answer", "created_at"],
            sa.select(
                given.c.user_id, given.c.key, given.c.fingerprint, given.c.sealed_answer, given.c.created_at
            ).where(free),
        )
        .on_conflict_do_nothing()
        .returning(idempotency_keys.c.answer)
        .cte("recorded")
    )
    # by the sealed answer, of which no two are equal: of two with one key at once, one may
    return recorded, sa.or_(
        given.c.key.is_(None), given.c.sealed_answer.in_(sa.select(recorded.c.answer).scalar_subquery())
    )


def recorded_columns(key: "IdempotencyKey | None", answer: msgspec.Struct, cipher: Cipher) -> dict[str, Any]:
    """Values for `records_of`."""
    if key is None:
        return dict.fromkeys(RECORDED)
    return {"key": key.key, "fingerprint": key.fingerprint, "sealed_answer": _seal(key, answer, cipher)}


class IdempotencyKey(msgspec.Struct, frozen=True):
    user_id: int
    key: str
    """At most 255 visible characters."""
    fingerprint: bytes
    """SHA-256 of method, path and body."""


class Outcome(msgspec.Struct, Generic[AnswerT], frozen=True):
    answer: AnswerT
    replayed: bool = False
    """True: the answer of an earlier, equal request; nothing was done now."""


class Context(Protocol):
    """What an idempotent operation needs of a service's context."""

    @property
    def database(self) -> Database:
        """Of the effect and of the record."""

    @property
    def cipher(self) -> Cipher:
        """Encrypts the answer at rest."""


def check_key(text: str) -> str:
    """The header's value if it is usable.

    Raises:
        InvalidInput: Empty, longer than 255, or with characters that are not visible ASCII.
    """
    if not _VISIBLE.fullmatch(text):
        raise InvalidInput(
            [Problem("value_error", ("header", "Idempotency-Key"), "Must be 1 to 255 visible ASCII characters")]
        )
    return text


async def once(
    transaction: Transaction,
    effect: Callable[[], Awaitable[AnswerT]],
    *,
    key: IdempotencyKey | None,
    answer_type: type[AnswerT],
    cipher: Cipher,
    now: datetime,
) -> Outcome[AnswerT]:
    """Run `effect` in the transaction unless an equal request with this key has had its effect.

    Args:
        transaction: Of the effect and of the record.
        effect: Makes the change; what it raises leaves no record, so that the request may be tried again.
        key: None: no key was given, the effect always runs.
        answer_type: To read a stored answer.
        cipher: Encrypts the answer at rest.
        now: Time of the request.

    Raises:
        IdempotencyMismatch: The key was used with another request.
        Conflict: The first request with this key is still in flight.
    """
    if key is None:
        return Outcome(await effect())
    if not await transaction.fetch_value(_TRY_LOCK, key=key.key, user_id=key.user_id):
        raise Conflict("A request with this Idempotency-Key is still in flight", retry_after_seconds=1)
    earlier = await find_answer(transaction, key=key, answer_type=answer_type, cipher=cipher, now=now)
    if earlier is not None:
        return Outcome(earlier, replayed=True)
    answer = await effect()
    await transaction.execute(_FORGET, user_id=key.user_id, key=key.key)
    await transaction.execute(
        _STORE,
        user_id=key.user_id,
        key=key.key,
        fingerprint=key.fingerprint,
        answer=_seal(key, answer, cipher),
        created_at=now,
    )
    return Outcome(answer)


async def idempotent(
    context: Context,
    effect: Callable[[Transaction], Awaitable[AnswerT]],
    *,
    key: IdempotencyKey | None,
    answer_type: type[AnswerT],
    now: datetime,
    audit: Callable[[AnswerT], Sequence[AuditObject]] | None,
) -> Outcome[AnswerT]:
    """Run `effect` in a transaction of its own, unless an equal request with this key has had its effect.

    Args:
        context: The service's.
        effect: Makes the change; what it raises undoes it and leaves no record.
        key: None: no key was given, the effect always runs.
        answer_type: To read a stored answer.
        now: Time of the request.
        audit: What the effect was done to, for the audit; None: the effect writes its entries itself, or does nothing.

    Raises:
        IdempotencyMismatch: The key was used with another request.
        Conflict: The first request with this key is still in flight.
    """
    async with context.database.transaction() as transaction:
        outcome = await once(
            transaction,
            lambda: effect(transaction),
            key=key,
            answer_type=answer_type,
            cipher=context.cipher,
            now=now,
        )
        if audit is not None and not outcome.replayed:
            await record_act(transaction, audit(outcome.answer), now=now)
        return outcome


async def find_answer(
    executor: Executor, *, key: IdempotencyKey, answer_type: type[AnswerT], cipher: Cipher, now: datetime
) -> AnswerT | None:
    """The answer of an earlier, equal request with this key; None when there was none.

    For operations that must ask elsewhere before their transaction, where a repetition might be refused.

    Raises:
        IdempotencyMismatch: The key was used with another request.
    """
    row = await executor.fetch_one(_FIND, user_id=key.user_id, key=key.key, since=now - RETENTION)
    if row is None:
        return None
    if row["fingerprint"] != key.fingerprint:
        raise IdempotencyMismatch("This Idempotency-Key was used with another request")
    return msgspec.json.decode(cipher.decrypt(row["answer"], row=_row(key)), type=answer_type)


def _seal(key: IdempotencyKey, answer: msgspec.Struct, cipher: Cipher) -> bytes:
    return cipher.encrypt(msgspec.json.encode(answer), row=_row(key))


def _row(key: IdempotencyKey) -> str:
    return f"idempotency_keys.answer:{key.user_id}:{key.fingerprint.hex()}:{key.key}"


async def purge_idempotency_keys(database: Database, now: datetime) -> bool:
    """Delete records older than 24 h; True: there are more."""
    return await purge(database, _PURGE, before=now - RETENTION)
