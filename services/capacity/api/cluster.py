"""What is free, and how busy the cluster is."""

from litestar import Controller, get
from litestar.di import NamedDependency

from services.capacity.context import Context
from services.capacity.operations.read import read_availability, read_cluster_status
from services.capacity.schemas import Availability, ClusterStatusBody, GpuTypeEntry
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
    async def availability(self, context: NamedDependency[Context]) -> Availability:
        """GPUs of each type, in total and by node. A type is listed when it has nodes or waiting jobs."""
        reading = await read_availability(context)
        as_of = reading.snapshot.as_of
        entries = {entry.gpu_type: GpuTypeEntry.of(entry, as_of) for entry in reading.types}
        return Availability(availability=entries, timestamp=context.clock(), as_of=as_of)


class ClusterController(Controller):
    path = "/v1/cluster"
    tags = ["Cluster Information"]  # noqa: RUF012 - Litestar's class attribute

    @get(
        "/status",
        operation_id="cluster_status",
        summary="Get overall cluster status and statistics",
        responses=error_responses(),
    )
    async def status(self, context: NamedDependency[Context]) -> ClusterStatusBody:
        """Totals over all GPU types, the number of jobs by status, and how well estimates of starts have held."""
        reading = await read_cluster_status(context)
        return ClusterStatusBody.of(reading.status, reading.snapshot, context.clock())
