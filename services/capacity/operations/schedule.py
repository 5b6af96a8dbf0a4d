"""The placer's round: leases for those whose turn has come."""

from collections import Counter
from collections.abc import Sequence
from datetime import datetime

import msgspec
from prometheus_client import Counter as Metric

from services.capacity.domain.estimates import Correction
from services.capacity.domain.lease import Lease
from services.capacity.domain.placement import Placement, Terms, place
from services.capacity.operations.read import read_corrections, read_leases, read_line, read_nodes
from services.capacity.storage.announcements import RECORD_CALIBRATION
from services.capacity.storage.leases import GRANT, TRY_PLACER_LOCK
from services.capacity.storage.nodes import SHARE_NODES
from shared.contracts.capacity import LeaseGranted
from shared.database import Database, Row, Transaction
from shared.messaging.outbox import Draft, Wakes, record_events

MOST_GRANTS = 500
"""In one round, so that its transaction stays short."""
BACKFILL_DEPTH = 500
"""Jobs behind the head that are looked at for backfill (Slurm's bf_max_job_test, whose default it is)."""

_starts = Metric("gpudev_forecast_starts", "Jobs that were told a p90 and have started", ["gpu_type"])
_in_time = Metric(
    "gpudev_forecast_starts_in_time", "Of these, those that started before the p90 they were told first", ["gpu_type"]
)


class PlacingRound(msgspec.Struct, frozen=True, kw_only=True):
    ran: bool
    """False: another replica is at it."""
    granted: tuple[Placement, ...] = ()
    more: bool = False
    """There was more to do than one round may."""


async def place_jobs(database: Database, *, now: datetime, relay: Wakes, terms: Terms) -> PlacingRound:
    """Lease GPUs to the jobs whose turn it is.

    One replica at a time, by an advisory lock; that no GPU is leased twice is the table's own constraint. Everything
    is read anew, so nothing can be out of date when another replica takes over; that the line is read only as far as
    one round can place keeps it cheap.
    """
    async with database.transaction() as tx:
        if not await tx.fetch_value(TRY_PLACER_LOCK):
            return PlacingRound(ran=False)
        nodes = await read_nodes(tx)
        leases = await read_leases(tx)
        line = await read_line(
            tx, gpu_types=sorted({node.gpu_type for node in nodes}), full_users=_full_users(leases, terms),
            depth=MOST_GRANTS + BACKFILL_DEPTH,
        )  # fmt: skip
        holds = [lease.hold(now, terms) for lease in leases]
        placements = place(nodes, line, holds=holds, now=now, terms=terms)[:MOST_GRANTS]
        granted = await _grant(tx, placements, now, relay) if placements else []
        return PlacingRound(ran=True, granted=tuple(granted), more=len(placements) == MOST_GRANTS)


def _full_users(leases: Sequence[Lease], terms: Terms) -> list[int]:
    """Users who may hold no further GPU: however many of their jobs wait, others behind them are seen."""
    if terms.most_gpus_per_user is None:
        return []
    held = Counter[int]()
    for lease in leases:
        held[lease.user_id] += lease.gpu_count
    return [user for user, gpus in held.items() if gpus >= terms.most_gpus_per_user]


async def _grant(tx: Transaction, placements: Sequence[Placement], now: datetime, relay: Wakes) -> list[Placement]:
    shared = await tx.fetch_all(SHARE_NODES, names=sorted({placement.node for placement in placements}))
    present = {row["name"] for row in shared}
    wanted = {placement.job_id: placement for placement in placements if placement.node in present}
    rows = await tx.fetch_all(
        GRANT,
        job_ids=list(wanted),
        nodes=[placement.node for placement in wanted.values()],
        lease_jobs=[placement.job_id for placement in wanted.values() for _ in placement.gpu_indexes],
        lease_indexes=[index for placement in wanted.values() for index in placement.gpu_indexes],
        now=now,
    )
    await record_events(tx, [_granted(row, wanted[row["job_id"]], now) for row in rows], relay)
    await _learn(tx, rows, now)
    return [wanted[row["job_id"]] for row in rows]


def _granted(row: Row, placement: Placement, now: datetime) -> Draft:
    granted = LeaseGranted(
        job_id=row["job_id"], epoch=row["epoch"], node=row["node"], gpu_count=row["gpu_count"],
        backfilled=placement.backfilled,
    )  # fmt: skip
    return Draft(data=granted, version=row["version"], occurred_at=now)


async def _learn(tx: Transaction, rows: Sequence[Row], now: datetime) -> None:
    """Count who started before the p90 that was told first, and correct those that are still to be told."""
    told = [row for row in rows if row["first_p90_at"] is not None and row["epoch"] == 1]
    if not told:
        return
    corrections = await read_corrections(tx)
    for gpu_type in sorted({row["gpu_type"] for row in told}):
        hits = [now <= row["first_p90_at"] for row in told if row["gpu_type"] == gpu_type]
        correction = corrections.get(gpu_type, Correction())
        for hit in hits:
            correction = correction.learn(in_time=hit)
        await tx.execute(
            RECORD_CALIBRATION, gpu_type=gpu_type, day=now.date(), starts=len(hits), in_time=sum(hits),
            factor=correction.factor,
        )  # fmt: skip
        _starts.labels(gpu_type).inc(len(hits))
        _in_time.labels(gpu_type).inc(sum(hits))
