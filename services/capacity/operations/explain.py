"""Why one job waits, for how long, and what would start sooner."""

import asyncio
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import msgspec

from services.capacity.domain.alternatives import find_sooner, smaller
from services.capacity.domain.placement import Terms, Waiting
from services.capacity.domain.queue_entry import Place, PlaceState
from services.capacity.domain.reasons import BEHIND
from services.capacity.operations.announce import Outlook, read_outlook
from services.capacity.operations.apply import place_of
from services.capacity.storage.queue import AHEAD, FIND_PLACE
from shared.contracts.capacity import Explanation
from shared.database import Database

_DISK = "Waiting for its disk; it keeps its place in the queue"


async def explain_job(database: Database, *, job_id: UUID, now: datetime, terms: Terms) -> Explanation:
    """What a job waits for, from facts of this moment; whoever asks has seen to it that they may.

    Raises:
        DatabaseUnavailable: Nobody can say.
    """
    async with database.transaction() as tx:
        row = await tx.fetch_one(FIND_PLACE, job_id=job_id)
        place = None if row is None else place_of(row)
        if place is None or place.state != PlaceState.WAITING or place.cancelling:
            return Explanation(waiting=False)
        job = _waiting(place)
        ahead: Any = await tx.fetch_one(
            AHEAD, gpu_type=job.gpu_type, priority=job.priority, submitted_at=job.submitted_at, job_id=job_id
        )
        outlook = await read_outlook(tx)
    explanation = await asyncio.to_thread(_explain, outlook, job, now, terms)
    return msgspec.structs.replace(
        explanation, position=ahead["jobs"] + 1, jobs_ahead=ahead["jobs"], gpus_ahead=ahead["gpus"]
    )


def _explain(outlook: Outlook, job: Waiting, now: datetime, terms: Terms) -> Explanation:
    if not job.ready:
        return Explanation(waiting=True, priority=job.priority, reason=_DISK)
    estimates = outlook.estimate_sizes([job, *smaller(job)], now, terms)
    found = estimates.get(job.gpu_count)
    return Explanation(
        waiting=True,
        priority=job.priority,
        estimated_start_at=found.p50 if found else None,
        estimated_start_p90_at=found.p90 if found else None,
        reason=outlook.reasons(now, terms).get(job.job_id, BEHIND),
        sooner=find_sooner(
            outlook.facts.nodes, outlook.line, job, holds=outlook.holds(now, terms), now=now, terms=terms,
            estimates=estimates,
        ),
    )  # fmt: skip


def _waiting(place: Place) -> Waiting:
    fields = {name: getattr(place, name) for name in Waiting.__struct_fields__ if name != "duration"}
    return msgspec.convert(fields | {"duration": timedelta(seconds=place.duration_seconds or 0)}, Waiting)
