"""What is on disks."""

from litestar import Controller, get
from litestar.di import NamedDependency
from litestar.params import FromPath

from services.disks.context import Context
from services.disks.domain.disk import check_name
from services.disks.operations.read import get_content
from services.disks.schemas import (
    NAME_LOC,
    DiskContent,
    disk_content,
)
from shared.web.authentication import AuthenticatedRequest
from shared.web.errors import error_responses


class ContentsController(Controller):
    """What is on disks."""

    path = "/v1/disks"
    tags = ["Disk Operations"]  # noqa: RUF012 - Litestar's class attribute

    @get(
        "/{disk_name:str}/content",
        operation_id="get_disk_content",
        summary="List the content of a disk",
        responses=error_responses(404),
    )
    async def show_content(
        self, request: AuthenticatedRequest, disk_name: FromPath[str], context: NamedDependency[Context]
    ) -> DiskContent:
        """The files that were on the disk when the last job that used it ended."""
        name = check_name(disk_name, NAME_LOC)
        disk, content = await get_content(context.database, user_id=request.user.user_id, name=name)
        return disk_content(disk, content)
