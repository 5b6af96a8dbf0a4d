"""How requests about disks went."""

from litestar import Controller, get
from litestar.di import NamedDependency
from litestar.params import FromPath

from services.disks.context import Context
from services.disks.domain.disk import check_name
from services.disks.operations.read import get_operation
from services.disks.schemas import (
    NAME_LOC,
    OperationState,
    operation_state,
)
from shared.web.authentication import AuthenticatedRequest
from shared.web.errors import error_responses


class OperationsController(Controller):
    """Operations on disks."""

    path = "/v1/disks"
    tags = ["Disk Operations"]  # noqa: RUF012 - Litestar's class attribute

    @get(
        "/{disk_name:str}/operations/{operation_id:str}",
        operation_id="get_disk_operation",
        summary="Poll the status of a disk operation",
        responses=error_responses(404),
    )
    async def show_operation(
        self,
        request: AuthenticatedRequest,
        disk_name: FromPath[str],
        operation_id: FromPath[str],
        context: NamedDependency[Context],
    ) -> OperationState:
        """Operations are known for 90 days, under each name that the disk has had."""
        name = check_name(disk_name, NAME_LOC)
        operation = await get_operation(
            context.database, user_id=request.user.user_id, name=name, operation_id=operation_id
        )
        return operation_state(operation)
