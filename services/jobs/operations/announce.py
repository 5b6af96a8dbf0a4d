"""Announcing a waiting job to capacity once more."""

from datetime import datetime
from uuid import UUID

from msgspec.structs import replace

from services.jobs import storage
from services.jobs.context import Context
from services.jobs.domain.job import Job, Phase
from services.jobs.domain.transition import Transition, owner_of
from services.jobs.operations.insert_jobs import submitted_event
from services.jobs.operations.transition import write_transition
from shared.contracts.jobs import JobEvent, JobPrioritised, JobRequeued
from shared.messaging import Draft, record_event

_IN_LINE = frozenset({Phase.PENDING, Phase.QUEUED})


async def announce_again(*, job_id: UUID, now: datetime, context: Context) -> bool:
    """Repeat the events that make a job's place, under the job's version: nothing about the job has changed.

    Returns:
        False: it does not wait any more.
    """
    async with context.database.transaction() as transaction:
        row = await transaction.fetch_one(storage.jobs.LOCK, job_id=job_id)
        job = storage.jobs.to_job(row) if row is not None else None
        if job is None or job.phase not in _IN_LINE:
            return False
        for event in _events(job):
            await record_event(transaction, Draft(data=event, version=job.version, occurred_at=now), context.outbox)
        # capacity begins to count its changes of the job anew
        unplaced = replace(
            job,
            capacity_sequence=0,
            queue_position=None,
            estimated_start_at=None,
            revision=job.revision + 1,
            updated_at=now,
        )
        await write_transition(
            transaction=transaction, before=job, transition=Transition(unplaced), now=now, context=context
        )
    return True


def _events(job: Job) -> list[JobEvent]:
    events: list[JobEvent] = [submitted_event(job)]
    if job.epoch:
        # leases of the new place must not be taken for older ones
        reason = job.requeue_reason or "Its place in the queue was lost"
        events.append(JobRequeued(**owner_of(job), epoch=job.epoch, reason=reason))
    if job.priority:
        events.append(JobPrioritised(**owner_of(job), priority=job.priority))
    return events
