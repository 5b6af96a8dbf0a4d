"""What the endpoints answer from, in one SQL statement; and what scheduling and estimates start from."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec

from services.capacity.context import KnownFleet
from services.capacity.domain.availability import QueueCount, Snapshot
from services.capacity.domain.estimates import (
    MOST_JOBS,
    Correction,
    Estimate,
    Facts,
    estimate_each,
    estimate_starts,
)
from services.capacity.domain.fleet import Fleet, Node
from services.capacity.domain.lease import Lease, Runs
from services.capacity.domain.placement import Allocation, SchedulingPolicy, WaitingJob
from services.capacity.domain.reasons import reasons
from services.capacity.storage.cluster import NODES_IN_USE
from services.capacity.storage.forecasts import CORRECTIONS, MOST_RUNS, SHARES
from services.capacity.storage.leases import LEASED
from services.capacity.storage.queue import ANY_WAITING, QUEUE, QUEUE_WITH_UNREADY
from services.capacity.storage.snapshot import SNAPSHOT
from shared.database import Executor, Transaction, to_struct


class SnapshotFacts(msgspec.Struct, frozen=True, kw_only=True):
    """A snapshot as it is stored: cheap to have, and to compare with another."""

    nodes: tuple[Node, ...]
    """The same object as long as nobody has changed any."""
    counts: str
    """JSON."""
    as_of: datetime | None
    starts: int
    starts_in_time: int

    def snapshot(self) -> Snapshot:
        """What it says."""
        return Snapshot(
            nodes=self.nodes,
            counts=msgspec.json.decode(self.counts, type=tuple[QueueCount, ...]),
            as_of=self.as_of,
            starts=self.starts,
            starts_in_time=self.starts_in_time,
        )


class QueueSnapshot(msgspec.Struct, frozen=True, kw_only=True):
    """What waiting jobs get their estimates and reasons from."""

    facts: Facts
    queue: list[WaitingJob]
    """The beginning of each type's queue."""

    def estimates(self, now: datetime, policy: SchedulingPolicy) -> dict[UUID, Estimate | None]:
        """When each job of the queue starts."""
        return estimate_starts(self.facts, self.queue, now=now, policy=policy)

    def estimate_sizes(
        self, choices: Sequence[WaitingJob], now: datetime, policy: SchedulingPolicy
    ) -> dict[int, Estimate | None]:
        """By number of GPUs, when one job of the queue would start with it; empty when too many jobs are ahead.

        Args:
            choices: The job with each number of GPUs.
            now: Time of the estimate.
            policy: The operators'.
        """
        job = choices[0]
        if all(other.job_id != job.job_id for other in self.queue):
            return {}
        ahead = [other for other in self.queue if other.gpu_type == job.gpu_type and other.order < job.order]
        found = estimate_each(self.facts, ahead, choices, now=now, policy=policy)
        return {choice.gpu_count: estimate for choice, estimate in zip(choices, found, strict=True)}

    def allocations(self, now: datetime, policy: SchedulingPolicy) -> list[Allocation]:
        """What running jobs hold, as the scheduler counts it."""
        return [lease.allocation(now, policy) for lease in self.facts.leases]

    def reasons(self, now: datetime, policy: SchedulingPolicy) -> dict[UUID, str]:
        """Why each job of the queue waits."""
        return reasons(self.facts.nodes, self.queue, self.allocations(now, policy), policy)


async def read_facts(database: Executor, known: KnownFleet | None = None) -> SnapshotFacts:
    """Nodes, leases and queue of one instant, as they were stored: one statement.

    Args:
        database: Where from.
        known: What the asker has read before, which is read again only if it has changed; None: nothing.
    """
    # held while this waits: another question may learn of a later fleet meanwhile
    fleet = known.fleet if known is not None else None
    (row,) = await database.fetch_all(SNAPSHOT, known_mark=fleet and fleet.mark)
    if fleet is None or row["mark"] != fleet.mark:
        nodes = msgspec.json.decode(row["nodes"], type=tuple[Node, ...])
        fleet = Fleet(mark=row["mark"], nodes=nodes, changed_at=row["fleet_changed_at"])
    if known is not None:
        known.fleet = fleet
    times = (row["confirmed_at"], fleet.changed_at, row["queue_changed_at"])
    return SnapshotFacts(
        nodes=fleet.nodes,
        counts=row["counts"],
        as_of=max(time for time in times if time is not None) if row["confirmed_at"] is not None else None,
        starts=row["starts"],
        starts_in_time=row["starts_in_time"],
    )


async def read_snapshot(database: Executor) -> Snapshot:
    """The same as the rules see it."""
    return (await read_facts(database)).snapshot()


async def read_nodes(database: Executor) -> list[Node]:
    """Nodes of known types that are not gone, with what holds their GPUs."""
    return [to_struct(row, Node) for row in await database.fetch_all(NODES_IN_USE)]


async def read_leases(database: Executor) -> list[Lease]:
    """Jobs that hold GPUs."""
    return [to_struct(row, Lease) for row in await database.fetch_all(LEASED)]


async def is_queue_empty(database: Executor) -> bool:
    """Whether no job waits, of any type: there is nothing to schedule, nor to announce to anyone."""
    return not await database.fetch_value(ANY_WAITING)


async def read_queue(
    database: Executor, *, gpu_types: Sequence[str], full_users: Sequence[int], depth: int
) -> list[WaitingJob]:
    """The first `depth` jobs of each type that wait for nothing but GPUs, without those of `full_users`."""
    rows = await database.fetch_all(QUEUE, gpu_types=list(gpu_types), full_users=list(full_users), depth=depth)
    return [to_struct(row, WaitingJob) for row in rows]


async def read_queue_snapshot(tx: Transaction, known: KnownFleet) -> QueueSnapshot:
    """The first MOST_JOBS of each type's queue, also those that wait for their disk, and the facts for estimates."""
    facts = Facts(
        nodes=(await read_facts(tx, known)).nodes,
        leases=await read_leases(tx),
        runs=await _read_runs(tx),
        corrections=await read_corrections(tx),
    )
    rows = await tx.fetch_all(QUEUE_WITH_UNREADY, depth=MOST_JOBS)
    return QueueSnapshot(facts=facts, queue=[to_struct(row, WaitingJob) for row in rows])


async def read_corrections(database: Executor) -> dict[str, Correction]:
    """What was learned about the p90, by GPU type."""
    rows = await database.fetch_all(CORRECTIONS)
    return {row["gpu_type"]: to_struct(row, Correction) for row in rows}


async def _read_runs(database: Executor) -> Runs:
    rows: Sequence[Any] = await database.fetch_all(SHARES, most=MOST_RUNS)
    return Runs.of([row["share"] for row in rows], [row["preparation"] for row in rows])
