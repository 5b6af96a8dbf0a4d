"""Choosing the availability zone of a disk that is to be made for a job."""

import asyncio
from collections.abc import Sequence
from datetime import datetime, timedelta
from uuid import UUID

from services.capacity.context import Context
from services.capacity.domain.placement import WaitingJob
from services.capacity.domain.zones import soonest_zone
from services.capacity.operations.read import read_queue_snapshot

_NO_ID = UUID(int=(1 << 128) - 1)
"""The job is not submitted yet; of two jobs with one time, this one is the last."""


async def choose_zone(
    context: Context, *, zones: Sequence[str], gpu_type: str, gpu_count: int, duration: timedelta, now: datetime
) -> str | None:
    """The zone where a job that is submitted now would start soonest; None: none of the zones could run it."""
    async with context.database.transaction() as tx:
        snapshot = await read_queue_snapshot(tx, context.known_fleet)
    job = WaitingJob(
        job_id=_NO_ID, gpu_type=gpu_type, gpu_count=gpu_count, submitted_at=now, duration=duration, ready=True
    )
    return await asyncio.to_thread(
        soonest_zone, zones, job, snapshot.queue, facts=snapshot.facts, now=now, policy=context.policy
    )
