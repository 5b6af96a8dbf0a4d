"""Messages for webhooks: recorded with the event that they tell, and what came of sending them."""

from collections.abc import Iterable
from datetime import datetime, timedelta
from http import HTTPStatus
from typing import Any
from uuid import UUID

import msgspec

from services.jobs import storage
from services.jobs.context import Context
from services.jobs.domain.webhook import (
    TURN_NEAR,
    Attempt,
    Delivery,
    DeliveryStatus,
    Webhook,
    next_attempt,
    turn_near_id,
)
from shared.contracts.asyncapi import event_name
from shared.contracts.capacity import JobQueued
from shared.contracts.events import CloudEvent
from shared.database import Transaction, to_struct
from shared.database.purge import purge
from shared.database.rows import by_column

RETENTION = timedelta(days=30)


class Message(msgspec.Struct, frozen=True, kw_only=True):
    """An event as webhooks are told it."""

    user_ids: int | None
    """Whose it is; None: whose job it is about."""
    job_ids: UUID | None
    message_ids: UUID
    types: str
    entities: str
    bodies: bytes


def message_of(data: Any, event: CloudEvent) -> Message:
    """The message of an event of a job or a disk."""
    return Message(
        user_ids=data.user_id,
        job_ids=getattr(data, "job_id", None),
        message_ids=event.id,
        types=event_name(type(data)),
        entities=f"{event.source} {event.subject}",
        bodies=msgspec.json.encode(event),
    )


def turn_near_message(data: JobQueued, event: CloudEvent) -> Message:
    """The message that a job is to start soon."""
    return Message(
        user_ids=None,
        job_ids=data.job_id,
        message_ids=turn_near_id(data.job_id),
        types=TURN_NEAR,
        entities=f"{event.source} {event.subject}",
        bodies=msgspec.json.encode(event),
    )


async def record_messages(transaction: Transaction, messages: Iterable[Message], now: datetime) -> None:
    """Record messages for the webhooks that want them, in the transaction that takes the events in.

    While nobody has a webhook the messages are not even made, if they come one by one.
    """
    if await transaction.fetch_value(storage.webhooks.ANY):
        rows = [msgspec.structs.asdict(message) for message in messages]
        await transaction.execute(storage.webhooks.RECORD, now=now, **by_column(rows, storage.webhooks.GIVEN))


async def next_message(*, webhook: Webhook, now: datetime, context: Context) -> Delivery | None:
    """The webhook's next message that is due; None when there is none."""
    row = await context.database.fetch_one(storage.webhooks.NEXT_DUE, webhook_id=webhook.id, now=now)
    return None if row is None else to_struct(row, Delivery)


async def note_attempt(
    *, webhook: Webhook, delivery: Delivery, attempt: Attempt, worker: UUID, now: datetime, context: Context
) -> bool:
    """Write down what came of sending a message; False when the webhook is another worker's by now, or gone."""
    due_at = None
    status = DeliveryStatus.DELIVERED
    if attempt.error is not None:
        # the receiver says that it is no more
        gone = attempt.status == HTTPStatus.GONE
        due_at = None if gone else next_attempt(delivery.attempts + 1, delivery.created_at, now)
        status = DeliveryStatus.PARKED if due_at is None else DeliveryStatus.PENDING
    written = await context.database.execute(
        storage.webhooks.NOTE_ATTEMPT,
        delivery_id=delivery.id,
        webhook_id=webhook.id,
        worker=worker,
        status=status,
        due_at=due_at,
        now=now,
        last_status=attempt.status,
        last_error=attempt.error,
    )
    return written > 0


async def purge_messages(*, now: datetime, context: Context) -> bool:
    """Delete messages that were delivered, or given up, long ago; True: there are more."""
    return await purge(context.database, storage.webhooks.PURGE, before=now - RETENTION)
