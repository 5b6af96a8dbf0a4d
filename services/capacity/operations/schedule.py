"""A round of the scheduler: leases for the jobs whose turn it is."""

from collections.abc import Sequence
from contextlib import ExitStack
from datetime import datetime

import msgspec
from prometheus_client import Counter, Histogram

from services.capacity.context import Context
from services.capacity.domain.estimates import Correction
from services.capacity.domain.placement import Allocation, Placement, SchedulingPolicy, gpus_by_user, schedule
from services.capacity.operations.read import is_queue_empty, read_corrections, read_leases, read_nodes, read_queue
from services.capacity.storage.cluster import SHARE_NODES
from services.capacity.storage.forecasts import RECORD_CALIBRATION
from services.capacity.storage.leases import GRANT, TRY_SCHEDULER_LOCK
from shared.contracts.capacity import LeaseGranted
from shared.contracts.catalogue import CATALOGUE
from shared.database import Row, Transaction
from shared.messaging.outbox import Draft, record_events
from shared.tracing import begin_span

MOST_GRANTS = 500
"""In one round, so that its transaction stays short."""
BACKFILL_DEPTH = 500
"""So many jobs behind the head are considered for backfill (the default of Slurm's bf_max_job_test)."""

_starts = Counter("gpudev_forecast_starts", "Jobs that were given a p90 and have started", ["gpu_type"])
_in_time = Counter(
    "gpudev_forecast_starts_in_time",
    "Those of them that started before the first p90 that they were given",
    ["gpu_type"],
)
_waits = Histogram(
    "gpudev_start_wait_seconds",
    "From a job's submission to its first lease, by GPU type",
    ["gpu_type"],
    buckets=(1, 5, 15, 60, 300, 900, 3600, 3 * 3600, 8 * 3600, 24 * 3600, 3 * 24 * 3600, 7 * 24 * 3600),
)
for _gpu_type in sorted({instance.gpu_type for instance in CATALOGUE}):
    # from 0: of a counter that begins with its first event nothing tells that it has risen
    for _counted in (_starts, _in_time, _waits):
        _counted.labels(_gpu_type)


class RoundOutcome(msgspec.Struct, frozen=True, kw_only=True):
    ran: bool
    """False: another replica is in its round."""
    granted: tuple[Placement, ...] = ()
    more: bool = False
    """There was more to grant than one round may."""
    passed_over: bool = False
    """A job whose turn it is, or its node, was just being changed by somebody else."""


async def schedule_jobs(context: Context, *, now: datetime) -> RoundOutcome:
    """Lease GPUs to the jobs whose turn it is.

    An advisory lock lets one replica at a time do it; that no GPU is leased twice rests on the table's own constraint
    alone. Everything is read anew in each round, so that another replica can take over at any time. A round reads only
    as much of each queue as it can grant, which keeps it cheap.
    """
    if await is_queue_empty(context.database):
        return RoundOutcome(ran=True)
    async with context.database.transaction() as tx:
        if not await tx.fetch_value(TRY_SCHEDULER_LOCK):
            return RoundOutcome(ran=False)
        placements = await _place(tx, context.policy, now)
        granted = await _grant(context, tx, placements, now) if placements else []
        return RoundOutcome(
            ran=True,
            granted=tuple(granted),
            more=len(placements) == MOST_GRANTS,
            passed_over=len(granted) < len(placements),
        )


async def _place(tx: Transaction, policy: SchedulingPolicy, now: datetime) -> list[Placement]:
    nodes = await read_nodes(tx)
    allocations = [lease.allocation(now, policy) for lease in await read_leases(tx)]
    queue = await read_queue(
        tx,
        gpu_types=sorted({node.gpu_type for node in nodes}),
        full_users=_full_users(allocations, policy),
        depth=MOST_GRANTS + BACKFILL_DEPTH,
    )
    return schedule(nodes, queue, allocations=allocations, now=now, policy=policy)[:MOST_GRANTS]


def _full_users(allocations: Sequence[Allocation], policy: SchedulingPolicy) -> list[int]:
    """The users who may hold no further GPU: their jobs, however many, do not hide others behind them."""
    most = policy.most_gpus_per_user
    return [] if most is None else [user for user, gpus in gpus_by_user(allocations).items() if gpus >= most]


async def _grant(context: Context, tx: Transaction, placements: Sequence[Placement], now: datetime) -> list[Placement]:
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
    with ExitStack() as spans:
        drafts = [_granted(row, wanted[row["job_id"]], now, _traced(row, spans)) for row in rows]
        await record_events(tx, drafts, context.outbox)
    await _learn(tx, rows, now)
    return [wanted[row["job_id"]] for row in rows]


def _traced(row: Row, spans: ExitStack) -> str | None:
    """The trace of a job goes on with its lease."""
    begun = begin_span("lease GPUs", parent=row["traceparent"], attributes={"gpudev.job_id": str(row["job_id"])})
    if begun is None:
        return None
    spans.callback(begun.end)
    return begun.traceparent


def _granted(row: Row, placement: Placement, now: datetime, traceparent: str | None) -> Draft:
    granted = LeaseGranted(
        job_id=row["job_id"],
        epoch=row["epoch"],
        node=row["node"],
        gpu_count=row["gpu_count"],
        backfilled=placement.backfilled,
    )
    return Draft(data=granted, version=row["version"], occurred_at=now, traceparent=traceparent)


async def _learn(tx: Transaction, rows: Sequence[Row], now: datetime) -> None:
    """Count the jobs that started before the first p90 that they were given, and correct the estimates to come."""
    for row in rows:
        if row["epoch"] == 1:
            _waits.labels(row["gpu_type"]).observe((now - row["submitted_at"]).total_seconds())
    given = [row for row in rows if row["first_p90_at"] is not None and row["epoch"] == 1]
    if not given:
        return
    corrections = await read_corrections(tx)
    for gpu_type in sorted({row["gpu_type"] for row in given}):
        hits = [now <= row["first_p90_at"] for row in given if row["gpu_type"] == gpu_type]
        correction = corrections.get(gpu_type, Correction())
        for hit in hits:
            correction = correction.learn(in_time=hit)
        await tx.execute(
            RECORD_CALIBRATION,
            gpu_type=gpu_type,
            day=now.date(),
            starts=len(hits),
            in_time=sum(hits),
            factor=correction.factor,
        )
        _starts.labels(gpu_type).inc(len(hits))
        _in_time.labels(gpu_type).inc(sum(hits))
