"""Snapshots of disks."""

from typing import Annotated

from litestar import Controller, Response, get, post
from litestar.di import NamedDependency
from litestar.params import FromPath, FromQuery, Parameter

from services.disks.api.requesting import begin_operation
from services.disks.context import Context
from services.disks.domain.disk import check_name
from services.disks.operations.read import list_snapshots
from services.disks.operations.snapshot import request_snapshot
from services.disks.schemas import (
    NAME_LOC,
    OperationRequested,
    SnapshotList,
    snapshot_info,
)
from shared.web.authentication import AuthenticatedRequest
from shared.web.errors import error_responses


class SnapshotsController(Controller):
    """Snapshots of disks."""

    path = "/v1/disks"
    tags = ["Disk Operations"]  # noqa: RUF012 - Litestar's class attribute

    @get(
        "/{disk_name:str}/snapshots",
        operation_id="list_disk_snapshots",
        summary="List the snapshots of a disk",
        responses=error_responses(404),
    )
    async def show_snapshots(
        self,
        request: AuthenticatedRequest,
        disk_name: FromPath[str],
        context: NamedDependency[Context],
        limit: FromQuery[Annotated[int, Parameter(ge=1, le=500)]] = 50,
        offset: FromQuery[Annotated[int, Parameter(ge=0, le=2**31)]] = 0,
    ) -> SnapshotList:
        """The disk's snapshots, newest first."""
        name = check_name(disk_name, NAME_LOC)
        page = await list_snapshots(
            context.database, user_id=request.user.user_id, name=name, limit=limit, offset=offset
        )
        return SnapshotList(snapshots=[snapshot_info(snapshot) for snapshot in page.snapshots], total=page.total)

    @post(
        "/{disk_name:str}/snapshots",
        status_code=200,
        operation_id="create_disk_snapshot",
        summary="Take a snapshot of a disk that is not in use",
        responses=error_responses(404, 409, 410, 422),
    )
    async def take_snapshot(
        self, request: AuthenticatedRequest, disk_name: FromPath[str], context: NamedDependency[Context]
    ) -> Response[OperationRequested]:
        """The answer comes at once. Poll the operation to learn when the snapshot is complete."""
        return await begin_operation(request_snapshot, request, disk_name, context)
