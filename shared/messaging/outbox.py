"""The outbox: every state change writes its event in its own transaction."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Protocol
from uuid import UUID, uuid4

import msgspec
import sqlalchemy as sa

from shared.contracts.events import CloudEvent, EventData, event_subject
from shared.database import Database, Executor, Statement, Transaction
from shared.database.tables import outbox
from shared.request_context import current_request_id
from shared.tracing import current_traceparent

OUTBOX_COLUMNS = (
    "event_id",
    "type",
    "subject",
    "entity_id",
    "entity_version",
    "occurred_at",
    "request_id",
    "traceparent",
    "data",
)
"""What `draft_columns` has, for statements that write rows of other tables and their events at once."""
_INSERT = Statement(
    sa.insert(outbox).values({name: sa.bindparam(name) for name in OUTBOX_COLUMNS}).returning(outbox.c.id)
)
_INSERT_MANY = Statement(
    sa.text(
        "INSERT INTO outbox "
        "(event_id, type, subject, entity_id, entity_version, occurred_at, request_id, traceparent, data) "
        "SELECT event_id, type, subject, entity_id, entity_version, occurred_at, request_id, traceparent, data "
        "FROM unnest("
        "CAST(:event_id AS uuid[]), CAST(:type AS text[]), CAST(:subject AS text[]), CAST(:entity_id AS text[]), "
        "CAST(:entity_version AS bigint[]), CAST(:occurred_at AS timestamptz[]), CAST(:request_id AS text[]), "
        "CAST(:traceparent AS text[]), CAST(:data AS jsonb[])) WITH ORDINALITY AS draft(event_id, type, subject, "
        "entity_id, entity_version, occurred_at, request_id, traceparent, data, turn) ORDER BY turn"
    )
)
_OLDEST_UNPUBLISHED = Statement(sa.select(sa.func.min(outbox.c.occurred_at)).where(outbox.c.published_at.is_(None)))


class Draft(msgspec.Struct, frozen=True, kw_only=True):
    """An event before it is recorded."""

    data: EventData
    version: int
    """Of the entity after the change."""
    occurred_at: datetime
    event_id: UUID = msgspec.field(default_factory=uuid4)
    traceparent: str | None = None
    """Of the trace that it belongs to; None: of what this task does, if that has one."""


class Wakes(Protocol):
    """What is woken when an event was committed."""

    def wake(self) -> None:
        """Publish soon."""


async def record_event(transaction: Transaction, draft: Draft, relay: Wakes) -> int:
    """Write an event in the transaction of its change; the relay is woken at commit.

    Returns:
        The message ID that users are told.
    """
    transaction.after_commit(relay.wake)
    message_id: int = await transaction.fetch_value(_INSERT, **draft_columns(draft))
    return message_id


async def record_events(transaction: Transaction, drafts: Sequence[Draft], relay: Wakes) -> None:
    """Write many events at once, in their order, as `record_event` does one."""
    if drafts:
        transaction.after_commit(relay.wake)
        rows = [draft_columns(draft) for draft in drafts]
        await transaction.execute(_INSERT_MANY, **{name: [row[name] for row in rows] for name in OUTBOX_COLUMNS})


def draft_columns(draft: Draft) -> dict[str, Any]:
    """Values of the outbox row, for statements that write it together with other rows."""
    data = draft.data
    return {
        "event_id": draft.event_id,
        "type": data.type_name(),
        "subject": event_subject(data),
        "entity_id": data.entity_id,
        "entity_version": draft.version,
        "occurred_at": draft.occurred_at,
        "request_id": current_request_id(),
        "traceparent": draft.traceparent or current_traceparent(),
        "data": data,
    }


def envelope(row: Any, source: str, *, traceparent: str | None = None) -> CloudEvent:
    """The CloudEvent of an outbox row.

    Args:
        row: All of it.
        source: Of the service.
        traceparent: Of what publishes it; None: that of the row.
    """
    return CloudEvent(
        id=row["event_id"],
        source=source,
        type=row["type"],
        subject=row["entity_id"],
        time=row["occurred_at"],
        sequence=row["entity_version"],
        messageid=row["id"],
        requestid=row["request_id"],
        traceparent=traceparent or row["traceparent"] or msgspec.UNSET,
        data=msgspec.Raw(msgspec.json.encode(row["data"])),
    )


async def oldest_unpublished(database: Database | Executor) -> datetime | None:
    """Time of the oldest event that waits to be published; None when there is none."""
    oldest: datetime | None = await database.fetch_value(_OLDEST_UNPUBLISHED)
    return oldest
