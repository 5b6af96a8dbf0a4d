"""Where leases and the cluster disagree, for operators."""

from litestar import Controller, get
from litestar.di import NamedDependency

from services.capacity.context import Context
from services.capacity.operations.measure import Measurer
from services.capacity.operations.orphans import list_orphans
from shared.web.authentication import AuthenticatedRequest
from shared.web.errors import error_responses
from shared.web.orphans import OrphanList


class OrphansController(Controller):
    tags = ["Orphans"]  # noqa: RUF012 - Litestar's class attribute

    @get(
        "/v1/orphans/leases",
        operation_id="list_lease_orphans",
        summary="List leases without a pod, and pods without a lease",
        responses=error_responses(403),
    )
    async def orphans(
        self, request: AuthenticatedRequest, context: NamedDependency[Context], measurer: NamedDependency[Measurer]
    ) -> OrphanList:
        """For operators: where leases and the cluster have disagreed for two minutes.

        A replica that was started within them has seen none yet.
        """
        now = context.clock()
        return OrphanList.of(list_orphans(measurer, asker=request.user, now=now), now)
