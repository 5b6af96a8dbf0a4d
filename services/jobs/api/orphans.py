"""What is left over in the cluster, for operators."""

from litestar import Controller, get
from litestar.di import NamedDependency

from services.jobs.adapters.kubernetes import Cluster
from services.jobs.context import Context
from services.jobs.operations.orphans import list_orphans
from shared.web.authentication import AuthenticatedRequest
from shared.web.errors import error_responses
from shared.web.orphans import OrphanList


class OrphansController(Controller):
    tags = ("Orphans",)

    @get(
        "/v1/orphans/cluster",
        operation_id="list_cluster_orphans",
        summary="List objects in the cluster that no job has",
        responses=error_responses(403),
    )
    async def orphans(
        self, request: AuthenticatedRequest, context: NamedDependency[Context], cluster: NamedDependency[Cluster]
    ) -> OrphanList:
        """For operators: pods, services, secrets and volumes with our labels and without a job, by a live look.

        The sweep deletes them, unless `GPUDEV_SWEEP` is `report`.
        """
        return OrphanList.of(await list_orphans(context, cluster, asker=request.user), context.clock())
