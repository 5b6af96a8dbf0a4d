"""What the endpoints answer: one SQL statement each, no write."""

from typing import Any

import msgspec

from services.capacity import storage
from services.capacity.domain.availability import (
    ClusterStatus,
    Snapshot,
    TypeAvailability,
    count_availability,
    count_cluster,
)
from shared.database import Executor


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
    row: Any = await database.fetch_one(storage.SNAPSHOT)
    return msgspec.convert(dict(row), Snapshot)
