"""What is free, and how busy the cluster is."""

from typing import Any

from litestar import Controller, Response, get
from litestar.di import NamedDependency

from services.capacity.api.shown_cluster import ShownCluster
from services.capacity.schemas import Availability, ClusterStatusBody
from shared.contracts.auth import Identity
from shared.web.authentication import AuthenticatedRequest
from shared.web.conditional import ConditionalResponse, Encoded, conditional_responses
from shared.web.fast_reads import FastRead

_AVAILABILITY = "/v1/gpu/availability"
_STATUS = "/v1/cluster/status"


class GpuController(Controller):
    tags = ["Cluster Information"]  # noqa: RUF012 - Litestar's class attribute

    @get(
        _AVAILABILITY,
        operation_id="gpu_availability",
        summary="Get current GPU availability across all GPU types",
        responses=conditional_responses(),
    )
    async def availability(
        self, request: AuthenticatedRequest, shown_cluster: NamedDependency[ShownCluster]
    ) -> Response[Availability]:
        """GPUs of each type, in total and by node. A type is listed when it has nodes or waiting jobs.

        With the `ETag` of an earlier answer in `If-None-Match` it is 304, without a body, while all but `timestamp` and
        `as_of` is the same.
        """
        return ConditionalResponse(request, await shown_cluster.availability())


class ClusterController(Controller):
    tags = ["Cluster Information"]  # noqa: RUF012 - Litestar's class attribute

    @get(
        _STATUS,
        operation_id="cluster_status",
        summary="Get overall cluster status and statistics",
        responses=conditional_responses(),
    )
    async def status(
        self, request: AuthenticatedRequest, shown_cluster: NamedDependency[ShownCluster]
    ) -> Response[ClusterStatusBody]:
        """Totals over all GPU types, the number of jobs by status, and how well estimates of starts have held.

        With the `ETag` of an earlier answer in `If-None-Match` it is 304, without a body, while all but `timestamp` and
        `as_of` is the same.
        """
        return ConditionalResponse(request, await shown_cluster.status())


def fast_reads(shown_cluster: ShownCluster) -> list[FastRead]:
    """Both routes: they have no parameters."""

    async def read_availability(_: Identity, __: bool) -> Encoded:
        return await shown_cluster.availability()

    async def read_status(_: Identity, __: bool) -> Encoded:
        return await shown_cluster.status()

    def is_at(route: str) -> Any:
        return lambda path, query: True if path == route and not query else None

    return [
        FastRead(template=_AVAILABILITY, match=is_at(_AVAILABILITY), read=read_availability),
        FastRead(template=_STATUS, match=is_at(_STATUS), read=read_status),
    ]
