"""Why one job waits, for how long, and what would start sooner."""

import asyncio
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import msgspec

from services.capacity.context import Context
from services.capacity.domain.alternatives import find_alternatives, smaller
from services.capacity.domain.placement import SchedulingPolicy, WaitingJob
from services.capacity.domain.queue_entry import EntryState, QueueEntry
from services.capacity.domain.reasons import BEHIND
from services.capacity.operations.read import QueueSnapshot, read_queue_snapshot
from services.capacity.storage.queue import AHEAD, AHEAD_BY_THE_END, FIND_ENTRY
from shared.contracts.capacity import Explanation
from shared.database import Row, Transaction, to_struct

_MANY_BEHIND = 2000
_DISK = "Waiting for its disk; it keeps its place in the queue"


async def explain_job(context: Context, *, job_id: UUID, now: datetime) -> Explanation:
    """What a job waits for, from the facts of this moment. The caller has checked whose job it is.

    Raises:
        DatabaseUnavailable: Nobody can say.
    """
    async with context.database.transaction() as tx:
        row = await tx.fetch_one(FIND_ENTRY, job_id=job_id)
        entry = None if row is None else to_struct(row, QueueEntry)
        if entry is None or entry.state != EntryState.WAITING or entry.cancelling:
            return Explanation(waiting=False)
        job = _waiting_job(entry)
        ahead = await _count_ahead(tx, job)
        snapshot = await read_queue_snapshot(tx, context.known_fleet)
    explanation = await asyncio.to_thread(_explain, snapshot, job, now, context.policy)
    return msgspec.structs.replace(
        explanation, position=ahead["jobs"] + 1, jobs_ahead=ahead["jobs"], gpus_ahead=ahead["gpus"]
    )


async def _count_ahead(tx: Transaction, job: WaitingJob) -> Row:
    """From the end of the queue, where most who ask are, and one by one only for a job with many behind it."""
    position: dict[str, Any] = {
        "gpu_type": job.gpu_type,
        "priority": job.priority,
        "submitted_at": job.submitted_at,
        "job_id": job.job_id,
    }
    rows = await tx.fetch_all(AHEAD_BY_THE_END, most=_MANY_BEHIND, **position) or await tx.fetch_all(AHEAD, **position)
    return rows[0]


def _explain(snapshot: QueueSnapshot, job: WaitingJob, now: datetime, policy: SchedulingPolicy) -> Explanation:
    if not job.ready:
        return Explanation(waiting=True, priority=job.priority, reason=_DISK)
    estimates = snapshot.estimate_sizes([job, *smaller(job)], now, policy)
    own = estimates.get(job.gpu_count)
    alternatives = find_alternatives(
        snapshot.facts.nodes,
        snapshot.queue,
        job,
        allocations=snapshot.allocations(now, policy),
        now=now,
        policy=policy,
        estimates=estimates,
    )
    return Explanation(
        waiting=True,
        priority=job.priority,
        estimated_start_at=own.p50 if own else None,
        estimated_start_p90_at=own.p90 if own else None,
        reason=snapshot.reasons(now, policy).get(job.job_id, BEHIND),
        sooner=alternatives,
    )


def _waiting_job(entry: QueueEntry) -> WaitingJob:
    fields = {name: getattr(entry, name) for name in WaitingJob.__struct_fields__ if name != "duration"}
    return msgspec.convert(fields | {"duration": timedelta(seconds=entry.duration_seconds or 0)}, WaitingJob)
