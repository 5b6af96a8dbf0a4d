"""Gauges of the jobs' tables."""

from prometheus_client import Gauge

from services.jobs import storage
from services.jobs.context import Context
from services.jobs.domain.job import OPEN_STATUSES
from shared.measures import WORK_OVERDUE, seconds_since

_jobs = Gauge("gpudev_jobs", "Jobs that are not over, by status", ["status"])
_overstaying = Gauge(
    "gpudev_jobs_overstaying_seconds", "How long the job that is furthest beyond its end still holds its GPUs"
)


async def measure_jobs(context: Context) -> None:
    """How many jobs there are, how late the workers are, and whether a job holds GPUs beyond its end."""
    now = context.clock()
    (overdue,) = await context.database.fetch_all(storage.measure.OVERDUE, now=now)
    for worker, since in overdue.items():
        WORK_OVERDUE.labels(worker).set(seconds_since(since, now))
    _overstaying.set(seconds_since(await context.database.fetch_value(storage.measure.OVERSTAYING, now=now), now))
    counts = {row["status"]: row["jobs"] for row in await context.database.fetch_all(storage.measure.COUNTS)}
    for status in OPEN_STATUSES:
        _jobs.labels(status.value).set(counts.get(status.value, 0))
