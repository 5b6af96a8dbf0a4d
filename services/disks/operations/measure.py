"""Gauges of the disks' tables."""

from prometheus_client import Gauge

from services.disks.context import Context
from services.disks.domain.operation import Action
from services.disks.storage.measure import OLDEST, OVERDUE
from shared.measures import WORK_OVERDUE, seconds_since

_oldest = Gauge(
    "gpudev_disk_operation_oldest_seconds", "Age of the oldest operation that is not done, by action", ["action"]
)


async def measure_operations(context: Context) -> None:
    """How late the worker is, and how old what it has not brought to an end."""
    now = context.clock()
    WORK_OVERDUE.labels("operations").set(seconds_since(await context.database.fetch_value(OVERDUE, now=now), now))
    oldest = {row["action"]: row["created_at"] for row in await context.database.fetch_all(OLDEST, now=now)}
    for action in Action:
        _oldest.labels(action.value).set(seconds_since(oldest.get(action.value), now))
