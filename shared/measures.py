"""Gauges of what waits, in tables and at the broker. Nothing happens when something waits, so it is measured.

Every replica measures for itself: take the maximum over replicas. What could not be measured keeps its last value;
`gpudev_health_faults`, and the last good turn of the loop `measure`, tell that it is old.
"""

from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from functools import partial

import sqlalchemy as sa
from prometheus_client import Gauge

from shared.background import Loop, each_in_turn
from shared.clock import Clock
from shared.database import Database, Statement
from shared.database.tables import dead_letters
from shared.messaging.consumer import Consumer
from shared.messaging.outbox import oldest_unpublished

Measure = Callable[[], Awaitable[None]]
"""Sets some gauges, by a few statements that cost next to nothing."""

PERIOD_SECONDS = 10.0
WORK_OVERDUE = Gauge(
    "gpudev_work_overdue_seconds", "How long the row that has waited longest for a worker is due, by worker", ["worker"]
)
_outbox_oldest = Gauge("gpudev_outbox_oldest_seconds", "Age of the oldest event that waits to be published")
_inbox_oldest = Gauge("gpudev_inbox_oldest_seconds", "Time that the oldest event to come has waited in the stream")
_inbox_waiting = Gauge("gpudev_inbox_waiting", "Events to come that wait in the stream, or are being worked on")
_dead_letters = Gauge("gpudev_dead_letters", "Events that were parked, until somebody delivers them again")

_COUNT_DEAD_LETTERS = Statement(sa.select(sa.func.count()).select_from(dead_letters))


def measuring(measures: Sequence[Measure]) -> Loop:
    """The loop that measures. One measure that fails leaves the others their turn; then the turn has failed."""
    return Loop(
        "measure",
        partial(each_in_turn, measures),
        period_seconds=PERIOD_SECONDS,
        turn_seconds=30.0,
        stale_seconds=12 * PERIOD_SECONDS,
    )


def outbox_measure(database: Database, clock: Clock) -> Measure:
    """How old the oldest event in the outbox is."""

    async def measure() -> None:
        _outbox_oldest.set(seconds_since(await oldest_unpublished(database), clock()))

    return measure


def inbox_measures(database: Database, consumer: Consumer, clock: Clock) -> Sequence[Measure]:
    """What waits to be taken in, and what could not be."""

    async def measure_stream() -> None:
        backlog = await consumer.backlog()
        _inbox_waiting.set(backlog.waiting)
        _inbox_oldest.set(seconds_since(backlog.oldest_at, clock()))

    async def measure_dead_letters() -> None:
        _dead_letters.set(await database.fetch_value(_COUNT_DEAD_LETTERS))

    return (measure_stream, measure_dead_letters)


def seconds_since(moment: datetime | None, now: datetime) -> float:
    """Age in seconds; 0 of None, and of what is still to come."""
    return 0.0 if moment is None else max(0.0, (now - moment).total_seconds())
