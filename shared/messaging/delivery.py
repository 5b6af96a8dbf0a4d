"""What an event does in a service: its handler runs in one transaction with the event's inbox row, once."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Generic, TypeVar

import msgspec
import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from shared.contracts.events import CloudEvent, EventData
from shared.database import Statement, Transaction
from shared.database.tables import inbox

EventT = TypeVar("EventT", bound=EventData)

_TAKE = Statement(
    insert(inbox)
    .values(event_id=sa.bindparam("event_id"), attempts=0, done_at=sa.bindparam("now"), updated_at=sa.bindparam("now"))
    .on_conflict_do_update(
        index_elements=[inbox.c.event_id],
        set_={"done_at": sa.bindparam("now"), "updated_at": sa.bindparam("now")},
        where=inbox.c.done_at.is_(None),
    )
)


@dataclass(frozen=True)
class Subscription(Generic[EventT]):
    """One event and what to do on it."""

    event: type[EventT]
    handler: Callable[[Transaction, EventT, CloudEvent], Awaitable[None]]
    """Makes its changes in the transaction; drops what is older than what it has."""


class Delivery:
    """Gives events to their handlers.

    Args:
        subscriptions: Of the service, one for each event.
    """

    def __init__(self, subscriptions: Sequence[Subscription[Any]]) -> None:
        self._by_type = {subscription.event.type_name(): subscription for subscription in subscriptions}

    async def handle(self, transaction: Transaction, body: bytes, now: datetime) -> tuple[str, str]:
        """Let an event take effect in the transaction.

        Returns:
            The event's type, and what came of it: `done`; `repeated`: it had had its effect; `ignored`: the service
            does not listen to it.

        Raises:
            msgspec.DecodeError: The event cannot be read.
        """
        event = msgspec.json.decode(body, type=CloudEvent)
        subscription = self._by_type.get(event.type)
        if subscription is None:
            return event.type, "ignored"
        data = msgspec.json.decode(event.data, type=subscription.event)
        if not await transaction.execute(_TAKE, event_id=event.id, now=now):
            return event.type, "repeated"
        await subscription.handler(transaction, data, event)
        return event.type, "done"
