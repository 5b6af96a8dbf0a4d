"""What events do in a service: their handlers run in one transaction with the events' inbox rows, once for each."""

from collections.abc import Awaitable, Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby
from typing import Any, Generic, TypeVar
from uuid import UUID

import msgspec
import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from shared.contracts.events import CloudEvent, EventData
from shared.database import Statement, Transaction
from shared.database.rows import given_rows
from shared.database.tables import inbox
from shared.tracing import Attributes, Kind, begin_span, span

EventT = TypeVar("EventT", bound=EventData)

_NOW = sa.bindparam("now", type_=inbox.c.done_at.type)
_given = given_rows("given", {"event_ids": inbox.c.event_id.type})
# in the order of the ids, so that two replicas that take the same events do not wait for each other
_TAKE = Statement(
    insert(inbox)
    .from_select(
        ["event_id", "attempts", "done_at", "updated_at"],
        sa.select(_given.c.event_ids, sa.literal_column("0"), _NOW, _NOW).order_by(_given.c.event_ids),
    )
    .on_conflict_do_update(
        index_elements=[inbox.c.event_id], set_={"done_at": _NOW, "updated_at": _NOW}, where=inbox.c.done_at.is_(None)
    )
    .returning(inbox.c.event_id)
)
"""Ids of the given events that had not had their effect."""


def _concerns_all(_: Any) -> bool:
    return True


@dataclass(frozen=True)
class Subscription(Generic[EventT]):
    """One event and what to do on it."""

    event: type[EventT]
    handler: Callable[[Transaction, EventT, CloudEvent], Awaitable[None]]
    """Makes its changes in the transaction; drops what is older than what it has."""
    concerns: Callable[[EventT], bool] = _concerns_all
    """False: the event means nothing to the service, and leaves not even a row in its inbox."""


@dataclass(frozen=True)
class BatchSubscription(Generic[EventT]):
    """One event of which many come, and what to do on those that come together.

    Subscriptions with one handler share its batches: what comes together of their events it gets in the order of their
    coming.
    """

    event: type[EventT]
    handler: Callable[[Transaction, Sequence[tuple[EventT, CloudEvent]]], Awaitable[None]]
    """As for one event. If it fails, each of them comes again by itself."""
    repeatable: bool = False
    """The handler itself makes nothing of an event that comes again, which so leaves no row in the inbox."""


AnySubscription = Subscription[Any] | BatchSubscription[Any]


class _Received(msgspec.Struct, frozen=True):
    subscription: AnySubscription
    data: Any
    event: CloudEvent


class Delivery:
    """Gives events to their handlers.

    Args:
        subscriptions: Of the service, one for each event.
    """

    def __init__(self, subscriptions: Sequence[AnySubscription]) -> None:
        self._by_type = {subscription.event.type_name(): subscription for subscription in subscriptions}

    async def handle(self, transaction: Transaction, body: bytes, now: datetime) -> tuple[str, str]:
        """Let an event take effect in the transaction; returns and raises as `handle_all`."""
        (outcome,) = await self.handle_all(transaction, [body], now)
        return outcome

    async def handle_all(
        self, transaction: Transaction, bodies: Sequence[bytes], now: datetime
    ) -> list[tuple[str, str]]:
        """Let events take effect in the transaction, in their order.

        Returns:
            The type of each, and what came of it: `done`; `repeated`: it had had its effect; `ignored`: it is none of
            the service's business.

        Raises:
            msgspec.DecodeError: An event cannot be read.
        """
        events = [msgspec.json.decode(body, type=CloudEvent) for body in bodies]
        read = [self._read(event) for event in events]
        fresh = await self._take(transaction, [one for one in read if one is not None], now)
        for handler, together in groupby(fresh, key=lambda one: one.subscription.handler):
            await _give(transaction, handler, list(together))
        done = {id(one) for one in fresh}
        return [(event.type, _outcome(one, done)) for event, one in zip(events, read, strict=True)]

    def _read(self, event: CloudEvent) -> _Received | None:
        subscription = self._by_type.get(event.type)
        if subscription is None:
            return None
        data = msgspec.json.decode(event.data, type=subscription.event)
        concerns = isinstance(subscription, BatchSubscription) or subscription.concerns(data)
        return _Received(subscription, data, event) if concerns else None

    async def _take(self, transaction: Transaction, received: Sequence[_Received], now: datetime) -> list[_Received]:
        """Those that have not had their effect, as far as the inbox is asked; of one that came twice, the first."""
        by_id: dict[UUID, _Received] = {}
        for one in received:
            if not _is_repeatable(one):
                by_id.setdefault(one.event.id, one)
        taken: set[UUID] = set()
        if by_id:
            taken = {row["event_id"] for row in await transaction.fetch_all(_TAKE, event_ids=list(by_id), now=now)}
        return [
            one for one in received if _is_repeatable(one) or (one.event.id in taken and by_id[one.event.id] is one)
        ]


def _is_repeatable(one: _Received) -> bool:
    return isinstance(one.subscription, BatchSubscription) and one.subscription.repeatable


async def _give(transaction: Transaction, handler: Any, together: Sequence[_Received]) -> None:
    if isinstance(together[0].subscription, BatchSubscription):
        with ExitStack() as spans:
            # side by side: what is done for one of them names its event's trace itself
            await handler(transaction, [(one.data, _traced(one.event, spans)) for one in together])
        return
    for one in together:
        with span(
            f"take in {one.event.type}", parent=_parent(one.event), kind=Kind.CONSUMER, attributes=_about(one.event)
        ):
            await handler(transaction, one.data, one.event)


def _traced(event: CloudEvent, spans: ExitStack) -> CloudEvent:
    """The event, whose trace goes on with the span of taking it in, which ends with the others."""
    begun = begin_span(f"take in {event.type}", parent=_parent(event), kind=Kind.CONSUMER, attributes=_about(event))
    if begun is None:
        return event
    spans.callback(begun.end)
    return msgspec.structs.replace(event, traceparent=begun.traceparent)


def _parent(event: CloudEvent) -> str | None:
    return event.traceparent or None


def _about(event: CloudEvent) -> Attributes:
    return {"messaging.system": "nats", "messaging.message.id": str(event.id)}


def _outcome(one: _Received | None, done: set[int]) -> str:
    if one is None:
        return "ignored"
    return "done" if id(one) in done else "repeated"
