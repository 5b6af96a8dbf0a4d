"""Sees that every job that waits has its place in capacity's line, and tells capacity again of one that has none.

Events bring places about; but a table may be restored to an earlier hour, or a message be lost in a way that nobody
thought of.
"""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from uuid import UUID

import structlog
from msgspec.structs import replace
from prometheus_client import Counter

from services.jobs import storage
from services.jobs.domain.change import Change, owner_of
from services.jobs.domain.job import Job, Phase
from services.jobs.operations import submitted_event, write_change
from services.jobs.resources import Resources
from shared.background import Loop
from shared.contracts.capacity import UNPLACED_SUBJECT, UnplacedReply, UnplacedRequest
from shared.contracts.jobs import JobEvent, JobPrioritised, JobRequeued
from shared.database import Transaction
from shared.messaging import Draft, call_rpc, record_event

log = structlog.get_logger(__name__)

_BATCH = 1000
_FIRST = UUID(int=0)
_IN_LINE = frozenset({Phase.PENDING, Phase.QUEUED})
_told_again = Counter("gpudev_jobs_told_again", "Waiting jobs that capacity had no place for")


class LineKeeper:
    """Compares the waiting jobs with capacity's line."""

    def __init__(self, resources: Resources) -> None:
        self._resources = resources
        self._seconds = resources.settings.line_seconds
        self.loop = Loop(
            "line_keeper", self.compare, period_seconds=self._seconds, turn_seconds=60.0,
            stale_seconds=5 * self._seconds + 60,
        )  # fmt: skip

    async def compare(self) -> None:
        """One comparison over all waiting jobs. One that has just changed is left alone: its event is on its way."""
        settled = datetime.now(UTC) - timedelta(seconds=self._seconds)
        last = _FIRST
        while True:
            rows = await self._resources.database.fetch_all(storage.WAITING, after=last, before=settled, limit=_BATCH)
            if not rows:
                return
            ids = [row["id"] for row in rows]
            last = ids[-1]
            reply = await call_rpc(self._resources.broker, UNPLACED_SUBJECT, UnplacedRequest(ids), UnplacedReply)
            await self._tell_again(reply.job_ids)

    async def _tell_again(self, ids: Sequence[UUID]) -> None:
        for job_id in ids:
            if await tell_again(job_id=job_id, now=datetime.now(UTC), resources=self._resources):
                _told_again.inc()
                log.warning("job_told_again", job_id=str(job_id))


async def tell_again(*, job_id: UUID, now: datetime, resources: Resources) -> bool:
    """Repeat the events that make a job's place, under the job's version: nothing about the job has changed.

    Returns:
        False: it does not wait any more.
    """
    async with resources.database.transaction() as transaction:
        row = await transaction.fetch_one(storage.LOCK, job_id=job_id)
        job = storage.to_job(row) if row is not None else None
        if job is None or job.phase not in _IN_LINE:
            return False
        for event in await _events(transaction, job):
            await record_event(transaction, Draft(data=event, version=job.version, occurred_at=now), resources.relay)
        # capacity begins to count its changes of the job anew
        unplaced = replace(
            job, capacity_sequence=0, queue_position=None, estimated_start_at=None, revision=job.revision + 1,
            updated_at=now,
        )  # fmt: skip
        await write_change(
            transaction=transaction, before=job, changed=Change(unplaced), now=now, resources=resources
        )  # fmt: skip
    return True


async def _events(transaction: Transaction, job: Job) -> list[JobEvent]:
    events: list[JobEvent] = [submitted_event(job)]
    if job.epoch:
        # leases of the new place must not be taken for older ones
        reason = job.requeue_reason or "Its place in the queue was lost"
        events.append(JobRequeued(**owner_of(job), epoch=job.epoch, reason=reason))
    priority = await transaction.fetch_value(
        storage.LAST_PRIORITY, entity_id=str(job.id), type=JobPrioritised.type_name()
    )
    if priority:
        events.append(JobPrioritised(**owner_of(job), priority=priority))
    return events
