"""What the endpoints answer, one SQL statement each and no write; and what the placer and the estimates look at."""

from collections.abc import Sequence
from typing import Any

import msgspec

from services.capacity.domain.availability import (
    ClusterStatus,
    Snapshot,
    TypeAvailability,
    count_availability,
    count_cluster,
)
from services.capacity.domain.estimates import Correction
from services.capacity.domain.fleet import Node
from services.capacity.domain.lease import Lease, Runs
from services.capacity.domain.placement import Waiting
from services.capacity.storage.announcements import CORRECTIONS, LINE_WITH_UNREADY, MOST_RUNS, SHARES
from services.capacity.storage.leases import LEASED, LINE
from services.capacity.storage.nodes import NODES_IN_USE
from services.capacity.storage.snapshot import SNAPSHOT
from shared.database import Executor, Row


class AvailabilityReading(msgspec.Struct, frozen=True, kw_only=True):
    types: tuple[TypeAvailability, ...]
    snapshot: Snapshot


class ClusterReading(msgspec.Struct, frozen=True, kw_only=True):
    status: ClusterStatus
    snapshot: Snapshot


async def read_availability(database: Executor) -> AvailabilityReading:
    """GPUs of each type, counted from one snapshot."""
    snapshot = await read_snapshot(database)
    return AvailabilityReading(types=count_availability(snapshot), snapshot=snapshot)


async def read_cluster_status(database: Executor) -> ClusterReading:
    """The same counts, and the jobs by status."""
    snapshot = await read_snapshot(database)
    return ClusterReading(status=count_cluster(snapshot), snapshot=snapshot)


async def read_snapshot(database: Executor) -> Snapshot:
    """Nodes, leases and line of one instant: one statement."""
    row: Any = await database.fetch_one(SNAPSHOT)
    return msgspec.convert(dict(row), Snapshot)


async def read_nodes(database: Executor) -> list[Node]:
    """Nodes of known types that are not gone, with what holds their GPUs."""
    return _structs(await database.fetch_all(NODES_IN_USE), Node)


async def read_leases(database: Executor) -> list[Lease]:
    """Jobs that hold GPUs."""
    return _structs(await database.fetch_all(LEASED), Lease)


async def read_line(
    database: Executor, *, gpu_types: Sequence[str], full_users: Sequence[int], depth: int
) -> list[Waiting]:
    """The first `depth` jobs of each type that wait for nothing but GPUs, without those of `full_users`."""
    rows = await database.fetch_all(
        LINE, gpu_types=list(gpu_types), full_users=list(full_users), depth=depth
    )  # fmt: skip
    return _structs(rows, Waiting)


async def read_line_with_unready(database: Executor, *, depth: int) -> list[Waiting]:
    """The first `depth` jobs of each type, also those that wait for their disk."""
    return _structs(await database.fetch_all(LINE_WITH_UNREADY, depth=depth), Waiting)


async def read_runs(database: Executor) -> Runs:
    """How long the last jobs ran, of what they asked for."""
    rows = await database.fetch_all(SHARES, most=MOST_RUNS)
    return Runs.of([row["share"] for row in rows], [row["preparation"] for row in rows])


async def read_corrections(database: Executor) -> dict[str, Correction]:
    """What was learned of the p90, by GPU type."""
    rows = await database.fetch_all(CORRECTIONS)
    return {row["gpu_type"]: Correction(factor=row["factor"]) for row in rows}


def _structs(rows: Sequence[Row], model: type[Any]) -> list[Any]:
    return msgspec.convert([dict(row) for row in rows], list[model])  # type: ignore[valid-type]
