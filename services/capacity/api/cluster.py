"""What is free, and how busy the cluster is."""

from datetime import UTC, datetime

from litestar import Controller, get
from litestar.di import NamedDependency

from services.capacity.operations.read import read_availability, read_cluster_status
from services.capacity.schemas import Availability, ClusterStatusBody, GpuTypeEntry
from shared.database import Database
from shared.web.errors import error_responses


class GpuController(Controller):
    path = "/v1/gpu"
    tags = ["Cluster Information"]  # noqa: RUF012 - Litestar's class attribute

    @get(
        "/availability",
        operation_id="gpu_availability",
        summary="Get current GPU availability across all GPU types",
        responses=error_responses(),
    )
    async def availability(self, database: NamedDependency[Database]) -> Availability:
        """GPUs by type and by node, for every GPU type that has nodes or waiting jobs."""
        reading = await read_availability(database)
        as_of = reading.snapshot.as_of
        entries = {entry.gpu_type: GpuTypeEntry.of(entry, as_of) for entry in reading.types}
        return Availability(availability=entries, timestamp=datetime.now(UTC), as_of=as_of)


class ClusterController(Controller):
    path = "/v1/cluster"
    tags = ["Cluster Information"]  # noqa: RUF012 - Litestar's class attribute

    @get(
        "/status",
        operation_id="cluster_status",
        summary="Get overall cluster status and statistics",
        responses=error_responses(),
    )
    async def status(self, database: NamedDependency[Database]) -> ClusterStatusBody:
        """Totals over all GPU types, and the number of jobs by status."""
        reading = await read_cluster_status(database)
        return ClusterStatusBody.of(reading.status, reading.snapshot, datetime.now(UTC))
