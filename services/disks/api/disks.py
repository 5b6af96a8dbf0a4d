"""Disks: made, listed, deleted, restored, renamed."""

from typing import Annotated
from uuid import uuid4

from litestar import Controller, Response, delete, get, post
from litestar.di import NamedDependency
from litestar.params import FromPath, FromQuery, JSONBody, Parameter
from msgspec import UNSET

from services.disks.api.requesting import begin_operation
from services.disks.context import Context
from services.disks.domain.disk import DEFAULT_SIZE_GB, NewDisk, check_name
from services.disks.operations.create import create_disk
from services.disks.operations.delete import delete_disk, restore_disk
from services.disks.operations.read import get_disk, list_disks
from services.disks.operations.rename import rename_disk
from services.disks.schemas import (
    NAME_LOC,
    CreateDiskRequest,
    DiskInfo,
    DiskList,
    OperationRequested,
    RenameAnswer,
    RenameDiskRequest,
    disk_info,
    rename_answer,
    requested,
)
from shared.idempotency import Outcome
from shared.web.authentication import AuthenticatedRequest
from shared.web.errors import error_responses
from shared.web.idempotency import idempotency_key, replayable
from shared.web.validation import Body


class DisksController(Controller):
    """Persistent disks."""

    path = "/v1/disks"
    tags = ["Disk Operations"]  # noqa: RUF012 - Litestar's class attribute

    @post(
        status_code=200,
        operation_id="create_disk",
        summary="Create a new persistent disk (queued operation)",
        dto=Body[CreateDiskRequest],
        return_dto=None,
        responses=error_responses(404, 409, 422, body=True),
    )
    async def create(
        self, request: AuthenticatedRequest, data: JSONBody[CreateDiskRequest], context: NamedDependency[Context]
    ) -> Response[OperationRequested]:
        """The answer comes at once. Poll the operation to learn when the disk exists."""
        new = NewDisk(
            disk_id=uuid4(),
            operation_id=uuid4(),
            user_id=request.user.user_id,
            username=request.user.username,
            name=data.disk_name,
            size_gb=data.size_gb or DEFAULT_SIZE_GB,
            requested_at=context.clock(),
            availability_zone=context.settings.zones()[0],
        )
        outcome = await create_disk(
            context,
            new=new,
            key=await idempotency_key(request),
            from_snapshot=data.from_snapshot,
            size_given=data.size_gb is not UNSET,
        )
        return replayable(Outcome(requested(outcome.answer), outcome.replayed))

    @get(
        operation_id="list_disks",
        summary="List the persistent disks of the authenticated user",
        responses=error_responses(),
    )
    async def list_own(
        self,
        request: AuthenticatedRequest,
        context: NamedDependency[Context],
        include_deleted: FromQuery[bool] = False,
        limit: FromQuery[Annotated[int, Parameter(ge=1, le=500)]] = 500,
        offset: FromQuery[Annotated[int, Parameter(ge=0, le=2**31)]] = 0,
    ) -> DiskList:
        """Newest first. Deleted disks are listed only with `include_deleted=true`."""
        page = await list_disks(
            context.database, user_id=request.user.user_id, include_deleted=include_deleted, limit=limit, offset=offset
        )
        domain = context.settings.user_email_domain
        return DiskList(disks=[disk_info(disk, domain) for disk in page.disks], total=page.total)

    @get(
        "/{disk_name:str}",
        operation_id="get_disk",
        summary="Get detailed information about a disk",
        responses=error_responses(404),
    )
    async def show(
        self, request: AuthenticatedRequest, disk_name: FromPath[str], context: NamedDependency[Context]
    ) -> DiskInfo:
        """The disk of that name; if all disks of that name are deleted, the one that was deleted last."""
        name = check_name(disk_name, NAME_LOC)
        disk = await get_disk(context.database, user_id=request.user.user_id, name=name)
        return disk_info(disk, context.settings.user_email_domain)

    @delete(
        "/{disk_name:str}",
        status_code=200,
        operation_id="delete_disk",
        summary="Delete a persistent disk (soft delete with retention)",
        responses=error_responses(404, 409, 410, 422),
    )
    async def remove(
        self, request: AuthenticatedRequest, disk_name: FromPath[str], context: NamedDependency[Context]
    ) -> Response[OperationRequested]:
        """The disk's name is free at once. The disk can be restored until the day that the answer names."""
        return await begin_operation(delete_disk, request, disk_name, context)

    @post(
        "/{disk_name:str}/restore",
        status_code=200,
        operation_id="restore_disk",
        summary="Bring back a deleted disk",
        responses=error_responses(404, 409, 410, 422),
    )
    async def restore(
        self, request: AuthenticatedRequest, disk_name: FromPath[str], context: NamedDependency[Context]
    ) -> Response[OperationRequested]:
        """If several disks of that name are deleted, the one that was deleted last is restored."""
        return await begin_operation(restore_disk, request, disk_name, context)

    @post(
        "/{disk_name:str}/rename",
        status_code=200,
        operation_id="rename_disk",
        summary="Rename a persistent disk",
        dto=Body[RenameDiskRequest],
        return_dto=None,
        responses=error_responses(404, 409, 410, 422, body=True),
    )
    async def rename(
        self,
        request: AuthenticatedRequest,
        disk_name: FromPath[str],
        data: JSONBody[RenameDiskRequest],
        context: NamedDependency[Context],
    ) -> Response[RenameAnswer]:
        """The disk has its new name at once. What AWS did not update is listed, and retried in the background."""
        outcome = await rename_disk(
            context,
            user_id=request.user.user_id,
            name=check_name(disk_name, NAME_LOC),
            new_name=data.new_name,
            key=await idempotency_key(request),
        )
        return replayable(Outcome(rename_answer(outcome.answer.renamed, outcome.answer.report), outcome.replayed))
