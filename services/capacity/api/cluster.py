"""What is free, and how busy the cluster is."""

import math
from datetime import timedelta
from typing import Annotated, Any

from litestar import Controller, Response, get
from litestar.di import NamedDependency
from litestar.params import FromQuery, QueryParameter

from services.capacity.api.shown_cluster import ShownCluster
from services.capacity.context import Context
from services.capacity.operations.show import show_choices, show_fleet, show_queue
from services.capacity.schemas import Availability, ClusterStatusBody, Estimates, Fleet, Queue
from shared.contracts.auth import Identity
from shared.errors import InvalidInput, Problem
from shared.web.authentication import AuthenticatedRequest
from shared.web.conditional import ConditionalResponse, Encoded, conditional_responses
from shared.web.errors import error_responses
from shared.web.fast_routes import FastRead, FastRoute

_AVAILABILITY = "/v1/gpu/availability"
_STATUS = "/v1/cluster/status"
_DURATION = "Hours that the job would ask for"
_MOST_HOURS = 168


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

    @get(
        "/v1/gpu/queue",
        operation_id="get_gpu_queue",
        summary="Get the queue of each GPU type",
        responses=error_responses(),
    )
    async def queue(self, request: AuthenticatedRequest, context: NamedDependency[Context]) -> Queue:
        """The waiting jobs in their order, with the starts that were estimated last; whose they are is not told."""
        return Queue.of(await show_queue(context), request.user, context.clock())

    @get(
        "/v1/gpu/estimates",
        operation_id="estimate_starts",
        summary="Estimate when jobs would start",
        responses=error_responses(),
    )
    async def estimates(
        self,
        request: AuthenticatedRequest,
        context: NamedDependency[Context],
        duration_hours: FromQuery[Annotated[float, QueryParameter(gt=0, le=_MOST_HOURS, description=_DURATION)]] = 4.0,
    ) -> Estimates:
        """When a job of each size would start if you submitted it now, at the end of the queue."""
        if not math.isfinite(duration_hours):
            raise InvalidInput([Problem("value_error", ("query", "duration_hours"), "Must be a finite number")])
        choices = await show_choices(
            context, asker=request.user, duration=timedelta(hours=duration_hours), now=context.clock()
        )
        return Estimates.of(choices, duration_hours, context.clock())


class ClusterController(Controller):
    tags = ["Cluster Information"]  # noqa: RUF012 - Litestar's class attribute

    @get(
        "/v1/cluster/nodes",
        operation_id="list_nodes",
        summary="List the nodes and their GPUs",
        responses=error_responses(),
    )
    async def nodes(self, request: AuthenticatedRequest, context: NamedDependency[Context]) -> Fleet:
        """Each node and each of its GPUs: free, yours, others', or held by something else in the cluster."""
        shown = await show_fleet(context, asker=request.user)
        return Fleet.of(shown.nodes, shown.as_of, context.clock())

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


def fast_routes(shown_cluster: ShownCluster) -> list[FastRoute]:
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
