"""Applying the jobs service's events: each changes its job's entry in the queue."""

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from services.capacity.context import Context
from services.capacity.domain.queue_entry import EntryState, QueueEntry, apply_event, ends_lease
from services.capacity.storage.forecasts import RECORD_RUN
from services.capacity.storage.leases import DELETE_LEASES
from services.capacity.storage.queue import CHANGING, CREATE_ENTRY, END_LEASE, KNOWN_JOBS, LOCK_ENTRY, SAVE_ENTRY
from shared.contracts.capacity import LeaseReleased
from shared.contracts.jobs import JobEvent
from shared.database import Database, Transaction, to_struct
from shared.messaging.outbox import Draft, record_event


async def apply_job_event(
    context: Context, tx: Transaction, event: JobEvent, *, sequence: int, now: datetime
) -> QueueEntry:
    """Apply one event to its job's entry, and give back the lease when the event ends it.

    Runs in the consumer's transaction, beside the inbox row. Events may come in any order and be repeated.

    Args:
        context: The service's.
        tx: The consumer's.
        event: Of the jobs service.
        sequence: Version of the job after the event.
        now: Time of the change.
    """
    before = await _lock_entry(tx, event.job_id)
    after = apply_event(before, event, sequence)
    if after == before:
        return after
    await save_entry(tx, after)
    if after.state == EntryState.ENDED and before.state != EntryState.ENDED:
        await tx.execute(RECORD_RUN, job_id=after.job_id)
    if ends_lease(before, after):
        await tx.execute(DELETE_LEASES, job_id=after.job_id)
        version = await tx.fetch_value(END_LEASE, the_job_id=after.job_id)
        released = LeaseReleased(job_id=after.job_id, epoch=before.epoch)
        await record_event(tx, Draft(data=released, version=version, occurred_at=now), context.outbox)
    tx.after_commit(context.scheduler.wake)
    return after


async def find_unknown_jobs(database: Database, *, job_ids: Sequence[UUID]) -> list[UUID]:
    """The jobs whose `submitted` event has not arrived here, or whose entry was lost."""
    rows = await database.fetch_all(KNOWN_JOBS, job_ids=list(job_ids))
    known = {row["job_id"] for row in rows}
    return [job_id for job_id in job_ids if job_id not in known]


async def save_entry(tx: Transaction, entry: QueueEntry) -> None:
    """Write a locked entry back."""
    columns = {name: getattr(entry, name) for name in CHANGING}
    await tx.execute(SAVE_ENTRY, the_job_id=entry.job_id, **columns)


async def _lock_entry(tx: Transaction, job_id: UUID) -> QueueEntry:
    row = await tx.fetch_one(LOCK_ENTRY, job_id=job_id)
    if row is None:
        await tx.execute(CREATE_ENTRY, job_id=job_id)
        (row,) = await tx.fetch_all(LOCK_ENTRY, job_id=job_id)
    return to_struct(row, QueueEntry)
