"""What differs between AWS and the tables, for operators."""

from litestar import Controller, get
from litestar.di import NamedDependency

from services.disks.context import Context
from services.disks.operations.orphans import list_orphans
from shared.web.authentication import AuthenticatedRequest
from shared.web.errors import error_responses
from shared.web.orphans import OrphanList


class OrphansController(Controller):
    """Volumes and snapshots that are nobody's."""

    tags = ["Orphans"]  # noqa: RUF012 - Litestar's class attribute

    @get(
        "/v1/orphans/aws",
        operation_id="list_aws_orphans",
        summary="List volumes and snapshots that no disk has, or that AWS has lost",
        responses=error_responses(403),
    )
    async def orphans(self, request: AuthenticatedRequest, context: NamedDependency[Context]) -> OrphanList:
        """For operators: what AWS shows and no disk has (`orphan`), what is to be gone and is not (`leftover`).

        And what a disk has and AWS does not show (`missing`). It is a live look, which changes nothing.
        """
        return OrphanList.of(await list_orphans(context, asker=request.user), context.clock())
