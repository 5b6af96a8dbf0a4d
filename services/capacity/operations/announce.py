"""Announcing what has changed: to waiting jobs their position, estimate and reason; to everybody what is free."""

import asyncio
from collections.abc import Sequence
from datetime import datetime, timedelta
from uuid import UUID

from services.capacity.context import Context
from services.capacity.domain.availability import TypeAvailability, count_availability
from services.capacity.domain.estimates import Estimate
from services.capacity.domain.reasons import BEHIND
from services.capacity.operations.read import is_queue_empty, read_queue_snapshot, read_snapshot
from services.capacity.storage.announcements import (
    ANNOUNCE_QUEUE,
    ANNOUNCEMENTS,
    SAVE_ANNOUNCEMENT,
    TRY_ANNOUNCER_LOCK,
)
from services.capacity.storage.snapshot import FOLD_COUNTS, FOLD_MARKS
from shared.contracts.capacity import AvailabilityChanged, JobQueued
from shared.database import Row, Transaction
from shared.messaging.outbox import Draft, record_event, record_events

PAUSE = timedelta(seconds=1)
"""Between two announcements about one job or GPU type, so that forty jobs that end at once make no storm of events."""
NEAR_POSITIONS = 20
"""Up to this position a job gets an announcement every second; further back, every position/NEAR_POSITIONS seconds. So
a queue of any length makes at most a few hundred announcements a second, and who is next learns of it at once."""
MOST_ANNOUNCEMENTS = 500
"""In one round, so that its transaction stays short."""


async def announce_queue(context: Context, *, now: datetime) -> bool:
    """Announce to waiting jobs what has changed for them, and to everybody what is free; True: there was more.

    The estimates are made between two transactions and in a thread, because they may take a while on a large cluster.
    By then they are as old as the facts that they were made from. Positions are counted when they are written.
    """
    queue = None if await is_queue_empty(context.database) else await _look_at_queue(context, now)
    async with context.database.transaction() as tx:
        if not await tx.fetch_value(TRY_ANNOUNCER_LOCK):
            return False
        announced = 0 if queue is None else await _announce_jobs(context, tx, *queue, now)
        await tx.execute(FOLD_COUNTS)
        await tx.execute(FOLD_MARKS)
        await _announce_availability(context, tx, now)
    return announced == MOST_ANNOUNCEMENTS


async def _look_at_queue(context: Context, now: datetime) -> tuple[dict[UUID, Estimate | None], dict[UUID, str]]:
    """When each job starts, and why it waits."""
    async with context.database.transaction() as tx:
        snapshot = await read_queue_snapshot(tx, context.known_fleet)
    estimates = await asyncio.to_thread(snapshot.estimates, now, context.policy)
    return estimates, snapshot.reasons(now, context.policy)


async def _announce_jobs(
    context: Context,
    tx: Transaction,
    estimates: dict[UUID, Estimate | None],
    reasons: dict[UUID, str],
    now: datetime,
) -> int:
    known = [estimates.get(job_id) for job_id in reasons]
    rows = await tx.fetch_all(
        ANNOUNCE_QUEUE,
        job_ids=list(reasons),
        p50s=[estimate and estimate.p50 for estimate in known],
        p90s=[estimate and estimate.p90 for estimate in known],
        reasons=list(reasons.values()),
        behind=BEHIND,
        now=now,
        pause=PAUSE.total_seconds(),
        near=float(NEAR_POSITIONS),
        most=MOST_ANNOUNCEMENTS,
    )
    await record_events(tx, _queued_events(rows, now), context.outbox)
    return len(rows)


def _queued_events(rows: Sequence[Row], now: datetime) -> list[Draft]:
    names = ("job_id", "gpu_type", "position", "estimated_start_at", "estimated_start_p90_at", "reason")
    ordered = sorted(rows, key=lambda row: (row["gpu_type"], row["position"]))
    return [
        Draft(data=JobQueued(**{name: row[name] for name in names}), version=row["version"], occurred_at=now)
        for row in ordered
    ]


async def _announce_availability(context: Context, tx: Transaction, now: datetime) -> None:
    known = {row["gpu_type"]: row for row in await tx.fetch_all(ANNOUNCEMENTS)}
    entries = {entry.gpu_type: _numbers(entry) for entry in count_availability(await read_snapshot(tx))}
    # a type that has no nodes and no jobs any more is announced once more, with zeros
    for gpu_type in sorted(entries.keys() | known.keys()):
        numbers = entries.get(gpu_type, _NOTHING)
        row = known.get(gpu_type)
        if row is not None and (now - row["told_at"] < PAUSE or all(row[k] == v for k, v in numbers.items())):
            continue
        version = await tx.fetch_value(SAVE_ANNOUNCEMENT, gpu_type=gpu_type, told_at=now, **numbers)
        changed = AvailabilityChanged(gpu_type=gpu_type, **numbers)
        await record_event(tx, Draft(data=changed, version=version, occurred_at=now), context.outbox)


_NOTHING = {"total": 0, "available": 0, "in_use": 0, "queued": 0}


def _numbers(entry: TypeAvailability) -> dict[str, int]:
    return {name: getattr(entry, name) for name in _NOTHING}
