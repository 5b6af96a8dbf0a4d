"""Applying the jobs service's events: each changes its job's entry in the queue."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec

from services.capacity.context import Context
from services.capacity.domain.queue_entry import EntryState, QueueEntry, ends_lease, entry_after
from services.capacity.storage.forecasts import RECORD_RUNS
from services.capacity.storage.leases import DELETE_LEASES
from services.capacity.storage.queue import (
    END_LEASES,
    ENTRY_COLUMNS,
    INSERT_ENTRIES,
    KNOWN_JOBS,
    LOCK_ENTRIES,
    SAVE_ENTRIES,
)
from shared.contracts.capacity import LeaseReleased
from shared.contracts.jobs import JobEvent, JobSubmitted
from shared.database import Database, Transaction, to_struct
from shared.database.rows import by_column
from shared.messaging.outbox import Draft, record_events


class Versioned(msgspec.Struct, frozen=True):
    """An event of the jobs service."""

    event: JobEvent
    sequence: int
    """Version of the job after the event."""
    traceparent: str | None = None
    """Of what takes it in; None: nobody traces it."""


async def apply_job_events(context: Context, tx: Transaction, events: Sequence[Versioned], *, now: datetime) -> None:
    """Apply events to their jobs' entries, in their order, and give back the leases that they end.

    Runs in the consumer's transaction, beside the inbox rows. Events may come in any order and be repeated. So many
    statements are run for a thousand events as for one.

    Args:
        context: The service's.
        tx: The consumer's.
        events: Of the jobs service.
        now: Time of the change.
    """
    while events:
        events = await _apply(context, tx, events, now)
    tx.after_commit(context.scheduler.wake)


async def find_unknown_jobs(database: Database, *, job_ids: Sequence[UUID]) -> list[UUID]:
    """The jobs whose `submitted` event has not arrived here, or whose entry was lost."""
    rows = await database.fetch_all(KNOWN_JOBS, job_ids=list(job_ids))
    known = {row["job_id"] for row in rows}
    return [job_id for job_id in job_ids if job_id not in known]


async def save_entries(tx: Transaction, entries: Sequence[QueueEntry]) -> None:
    """Write locked entries back."""
    if entries:
        await tx.execute(SAVE_ENTRIES, **_columns(entries))


async def end_leases(tx: Transaction, job_ids: Sequence[UUID]) -> dict[UUID, int]:
    """Take the leases of locked entries back; the version of each entry then, for the event that tells of it."""
    await tx.execute(DELETE_LEASES, job_ids=list(job_ids))
    return {row["job_id"]: row["version"] for row in await tx.fetch_all(END_LEASES, job_ids=list(job_ids))}


async def _apply(context: Context, tx: Transaction, events: Sequence[Versioned], now: datetime) -> list[Versioned]:
    """Events of entries that another transaction has made meanwhile: they are still to be applied."""
    rows = await tx.fetch_all(LOCK_ENTRIES, job_ids=list({one.event.job_id for one in events}))
    known = {row["job_id"]: to_struct(row, QueueEntry) for row in rows}
    entries = dict(known)
    for one in events:
        before = entries.get(one.event.job_id) or QueueEntry(job_id=one.event.job_id)
        entries[before.job_id] = _traced(entry_after(before, one.event, one.sequence), one)
    missed = await _insert(tx, [entry for job_id, entry in entries.items() if job_id not in known])
    changed = [(known[job_id], after) for job_id, after in entries.items() if job_id in known]
    await _save(context, tx, [(before, after) for before, after in changed if before != after], now)
    return [one for one in events if one.event.job_id in missed]


def _traced(entry: QueueEntry, one: Versioned) -> QueueEntry:
    """What its job's first event began goes on with its lease."""
    if one.traceparent is None or entry.traceparent is not None or not isinstance(one.event, JobSubmitted):
        return entry
    return msgspec.structs.replace(entry, traceparent=one.traceparent)


async def _insert(tx: Transaction, entries: Sequence[QueueEntry]) -> set[UUID]:
    """Write new entries; jobs that had one already."""
    if not entries:
        return set()
    inserted = {row["job_id"] for row in await tx.fetch_all(INSERT_ENTRIES, **_columns(entries))}
    return {entry.job_id for entry in entries} - inserted


async def _save(
    context: Context, tx: Transaction, changed: Sequence[tuple[QueueEntry, QueueEntry]], now: datetime
) -> None:
    await save_entries(tx, [after for _, after in changed])
    # also when its start is told after its end
    over = [after.job_id for _, after in changed if after.state == EntryState.ENDED]
    if over:
        await tx.execute(RECORD_RUNS, job_ids=over)
    released = [before for before, after in changed if ends_lease(before, after)]
    if released:
        versions = await end_leases(tx, [entry.job_id for entry in released])
        drafts = [
            Draft(
                data=LeaseReleased(job_id=entry.job_id, epoch=entry.epoch),
                version=versions[entry.job_id],
                occurred_at=now,
                traceparent=entry.traceparent,
            )
            for entry in released
        ]
        await record_events(tx, drafts, context.outbox)


def _columns(entries: Sequence[QueueEntry]) -> dict[str, list[Any]]:
    return by_column([msgspec.structs.asdict(entry) for entry in entries], ENTRY_COLUMNS)
