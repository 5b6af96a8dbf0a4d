"""The placer's round: leases for those whose turn has come, news for those who wait."""

from collections.abc import Sequence
from datetime import datetime, timedelta

import msgspec

from services.capacity import storage
from services.capacity.domain.availability import OVER, TypeAvailability, count_availability
from services.capacity.domain.estimates import Hold, estimate_starts
from services.capacity.domain.fleet import Node
from services.capacity.domain.line import QUIET, Notice, Told, due, notices
from services.capacity.domain.placement import Placement, Waiting, place
from services.capacity.operations.reading import read_snapshot
from shared.contracts.capacity import AvailabilityChanged, JobQueued, LeaseGranted
from shared.database import Database, Row, Transaction
from shared.messaging.outbox import Draft, Wakes, record_event

MOST_GRANTS = 50
"""In one round, so that its transaction stays short."""
MOST_NOTICES = 200


class PlacingRound(msgspec.Struct, frozen=True, kw_only=True):
    ran: bool
    """False: another replica is at it."""
    granted: tuple[Placement, ...] = ()
    more: bool = False
    """There was more to do than one round may."""


async def place_jobs(database: Database, *, now: datetime, relay: Wakes) -> PlacingRound:
    """Lease GPUs to the jobs whose turn it is, and tell the others where they stand.

    One replica at a time, by an advisory lock; that no GPU is leased twice is the table's own constraint.
    """
    async with database.transaction() as tx:
        if not await tx.fetch_value(storage.TRY_PLACER_LOCK):
            return PlacingRound(ran=False)
        await tx.fetch_all(storage.SHARE_NODES)
        nodes = await _read_nodes(tx)
        rows = await tx.fetch_all(storage.LINE)
        line = [_waiting(row) for row in rows]
        placements = place(nodes, line)[:MOST_GRANTS]
        granted = [placement for placement in placements if await _grant(tx, placement, now, relay)]
        if len(placements) == MOST_GRANTS:
            return PlacingRound(ran=True, granted=tuple(granted), more=True)
        more = await _tell_line(tx, rows, granted, now, relay)
        await _tell_availability(tx, now, relay)
        return PlacingRound(ran=True, granted=tuple(granted), more=more)


async def _grant(tx: Transaction, placement: Placement, now: datetime, relay: Wakes) -> bool:
    row = await tx.fetch_one(storage.GRANT, the_job_id=placement.job_id, node=placement.node)
    if row is None:
        return False  # cancelled or ended since the line was read
    await tx.execute(
        storage.INSERT_LEASES, node=placement.node, indexes=list(placement.gpu_indexes), job_id=placement.job_id,
        epoch=row["epoch"], now=now,
    )  # fmt: skip
    granted = LeaseGranted(
        job_id=placement.job_id, epoch=row["epoch"], node=placement.node, gpu_count=len(placement.gpu_indexes)
    )
    await record_event(tx, Draft(data=granted, version=row["version"], occurred_at=now), relay)
    return True


async def _tell_line(
    tx: Transaction, rows: Sequence[Row], granted: Sequence[Placement], now: datetime, relay: Wakes
) -> bool:
    gone = {placement.job_id for placement in granted}
    rows = [row for row in rows if row["job_id"] not in gone]
    if not rows:
        return False
    nodes = await _read_nodes(tx)
    line = [_waiting(row) for row in rows]
    starts = estimate_starts(nodes, await _read_holds(tx), line, now)
    told = {row["job_id"]: _told(row) for row in rows}
    found = notices(nodes, line, starts)
    pending = [(job_id, notice) for job_id, notice in found.items() if due(now, told[job_id], notice)]
    types = {row["job_id"]: row["gpu_type"] for row in rows}
    for job_id, notice in pending[:MOST_NOTICES]:
        version = await tx.fetch_value(storage.TELL_JOB, the_job_id=job_id, now=now, **msgspec.structs.asdict(notice))
        if version is not None:
            queued = JobQueued(job_id=job_id, gpu_type=types[job_id], **msgspec.structs.asdict(notice))
            await record_event(tx, Draft(data=queued, version=version, occurred_at=now), relay)
    return len(pending) > MOST_NOTICES


async def _tell_availability(tx: Transaction, now: datetime, relay: Wakes) -> None:
    known = {row["gpu_type"]: row for row in await tx.fetch_all(storage.ANNOUNCED)}
    entries = {entry.gpu_type: _numbers(entry) for entry in count_availability(await read_snapshot(tx))}
    # a type without nodes and jobs is told of once more: nothing of it is left
    for gpu_type in sorted(entries.keys() | known.keys()):
        numbers = entries.get(gpu_type, _NOTHING)
        row = known.get(gpu_type)
        if row is not None and (now - row["told_at"] < QUIET or all(row[k] == v for k, v in numbers.items())):
            continue
        version = await tx.fetch_value(storage.ANNOUNCE, gpu_type=gpu_type, told_at=now, **numbers)
        changed = AvailabilityChanged(gpu_type=gpu_type, **numbers)
        await record_event(tx, Draft(data=changed, version=version, occurred_at=now), relay)


async def _read_nodes(tx: Transaction) -> list[Node]:
    return [msgspec.convert(dict(row), Node) for row in await tx.fetch_all(storage.NODES_IN_USE)]


async def _read_holds(tx: Transaction) -> list[Hold]:
    rows = await tx.fetch_all(storage.HOLDS)
    # a job that is over for its user, or soon, gives its GPUs back before its time, nobody knows when
    return [
        Hold(
            node=row["node"],
            gpu_count=row["gpu_count"],
            ends_at=None if row["cancelling"] or row["status"] in OVER else row["expires_at"],
        )
        for row in rows
    ]


def _waiting(row: Row) -> Waiting:
    return Waiting(
        job_id=row["job_id"],
        gpu_type=row["gpu_type"],
        gpu_count=row["gpu_count"],
        submitted_at=row["submitted_at"],
        duration=timedelta(seconds=row["duration_seconds"]),
        ready=row["ready"],
        zone=row["zone"],
    )


def _told(row: Row) -> Told:
    if row["position"] is None:
        return Told()
    notice = Notice(position=row["position"], estimated_start_at=row["estimated_start_at"], reason=row["reason"])
    return Told(notice=notice, at=row["told_at"])


_NOTHING = {"total": 0, "available": 0, "in_use": 0, "queued": 0}


def _numbers(entry: TypeAvailability) -> dict[str, int]:
    return {name: getattr(entry, name) for name in _NOTHING}
