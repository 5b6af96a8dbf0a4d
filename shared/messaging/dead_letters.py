"""Events that a service could not handle in all its attempts: they lie in its own table until somebody acts."""

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

import msgspec
import sqlalchemy as sa

from shared.audit import record_act
from shared.contracts.audit import AuditObject
from shared.database import Database, Statement, to_struct
from shared.database.tables import dead_letters
from shared.errors import Conflict, NotFound
from shared.messaging.delivery import Delivery

_LIST = Statement(
    sa.select(dead_letters.c.event_id, dead_letters.c.subject, dead_letters.c.error, dead_letters.c.parked_at).order_by(
        dead_letters.c.parked_at, dead_letters.c.event_id
    )
)
_LOCK = Statement(
    sa.select(dead_letters.c.body, dead_letters.c.subject)
    .where(dead_letters.c.event_id == sa.bindparam("event_id"))
    .with_for_update()
)
_DELETE = Statement(sa.delete(dead_letters).where(dead_letters.c.event_id == sa.bindparam("event_id")))


class DeadLetter(msgspec.Struct, frozen=True, kw_only=True):
    event_id: UUID
    subject: str
    error: str
    """Of the last attempt."""
    parked_at: datetime


async def list_dead_letters(database: Database) -> Sequence[DeadLetter]:
    """All of the service, oldest first."""
    return [to_struct(row, DeadLetter) for row in await database.fetch_all(_LIST)]


async def redeliver(database: Database, delivery: Delivery, *, event_id: UUID, now: datetime) -> str:
    """Let an event take effect after all, and forget that it failed; what came of it, as `Delivery` says.

    Whatever the handler raises is raised here, and the event stays where it is. Safe while the service runs: handlers
    drop what is older than what they know, and the inbox lets an event take effect once.

    Raises:
        NotFound: There is no such dead letter; perhaps it was delivered meanwhile.
        Conflict: The service does not listen to this event any more.
    """
    async with database.transaction() as transaction:
        row = await transaction.fetch_one(_LOCK, event_id=event_id)
        if row is None:
            raise NotFound(f"Dead letter {event_id}")
        _, outcome = await delivery.handle(transaction, row["body"], now)
        if outcome == "ignored":
            raise Conflict(f"The service does not listen to {row['subject']}")
        await transaction.execute(_DELETE, event_id=event_id)
        await record_act(transaction, [AuditObject("event", str(event_id), row["subject"])], now=now)
    return outcome
