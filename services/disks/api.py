"""The disks' routes: parse, call one operation, map."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Annotated, Any
from uuid import uuid4

from litestar import Controller, Request, Response, delete, get, post
from litestar.di import NamedDependency
from litestar.params import FromPath, FromQuery, JSONBody, Parameter
from msgspec import UNSET

from services.disks.domain.changes import Limits
from services.disks.domain.disk import DEFAULT_SIZE_GB, NewDisk, check_name
from services.disks.operations.disks import create_disk, delete_disk, restore_disk
from services.disks.operations.snapshots import request_snapshot
from services.disks.queries import get_content, get_disk, get_operation, list_disks, list_snapshots
from services.disks.reconciler.renaming import Renaming
from services.disks.schemas import (
    CreateDiskRequest,
    DiskContent,
    DiskInfo,
    DiskList,
    OperationRequested,
    OperationState,
    RenameAnswer,
    RenameDiskRequest,
    SnapshotList,
    disk_content,
    disk_info,
    operation_state,
    rename_answer,
    requested,
    snapshot_info,
)
from services.disks.settings import DisksSettings
from shared.contracts.auth import Identity
from shared.database import Database
from shared.encryption import Cipher
from shared.idempotency import Outcome
from shared.messaging.outbox import Wakes
from shared.web.errors import error_responses
from shared.web.idempotency import idempotency_key, replayable
from shared.web.validation import Body

_NAME_LOC = ("path", "disk_name")


@dataclass(frozen=True)
class Desk:
    """What the handlers work with."""

    database: Database
    relay: Wakes
    """Woken for events."""
    reconciler: Wakes
    """Woken when there is something to make."""
    renaming: Renaming
    cipher: Cipher
    settings: DisksSettings
    limits: Limits
    clock: Callable[[], datetime]


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
        self, request: Request[Identity, Any, Any], data: JSONBody[CreateDiskRequest], desk: NamedDependency[Desk]
    ) -> Response[OperationRequested]:
        """The answer comes at once. Poll the operation to learn when the disk exists."""
        new = NewDisk(
            disk_id=uuid4(), operation_id=uuid4(), user_id=request.user.user_id, username=request.user.username,
            name=data.disk_name, size_gb=data.size_gb or DEFAULT_SIZE_GB, requested_at=desk.clock(),
            availability_zone=desk.settings.availability_zone,
        )  # fmt: skip
        outcome = await create_disk(
            desk.database, desk.reconciler, new=new, limits=desk.limits, key=await idempotency_key(request),
            cipher=desk.cipher, from_snapshot=data.from_snapshot, size_given=data.size_gb is not UNSET,
        )  # fmt: skip
        return replayable(Outcome(requested(outcome.answer), outcome.replayed))

    @get(
        operation_id="list_disks",
        summary="List the persistent disks of the authenticated user",
        responses=error_responses(),
    )
    async def list_own(
        self,
        request: Request[Identity, Any, Any],
        desk: NamedDependency[Desk],
        include_deleted: FromQuery[bool] = False,
        limit: FromQuery[Annotated[int, Parameter(ge=1, le=500)]] = 500,
        offset: FromQuery[Annotated[int, Parameter(ge=0, le=2**31)]] = 0,
    ) -> DiskList:
        """Newest first. Deleted disks are listed only with `include_deleted=true`."""
        page = await list_disks(
            desk.database, user_id=request.user.user_id, include_deleted=include_deleted, limit=limit, offset=offset
        )
        domain = desk.settings.user_email_domain
        return DiskList(disks=[disk_info(disk, domain) for disk in page.disks], total=page.total)

    @get(
        "/{disk_name:str}",
        operation_id="get_disk",
        summary="Get detailed information about a disk",
        responses=error_responses(404),
    )
    async def show(
        self, request: Request[Identity, Any, Any], disk_name: FromPath[str], desk: NamedDependency[Desk]
    ) -> DiskInfo:
        """The disk of that name; if all disks of that name are deleted, the one that was deleted last."""
        name = check_name(disk_name, _NAME_LOC)
        disk = await get_disk(desk.database, user_id=request.user.user_id, name=name)
        return disk_info(disk, desk.settings.user_email_domain)

    @get(
        "/{disk_name:str}/operations/{operation_id:str}",
        operation_id="get_disk_operation",
        summary="Poll the status of a disk operation",
        responses=error_responses(404),
    )
    async def show_operation(
        self,
        request: Request[Identity, Any, Any],
        disk_name: FromPath[str],
        operation_id: FromPath[str],
        desk: NamedDependency[Desk],
    ) -> OperationState:
        """Operations are known for 90 days, under each name that the disk has had."""
        name = check_name(disk_name, _NAME_LOC)
        operation = await get_operation(
            desk.database, user_id=request.user.user_id, name=name, operation_id=operation_id
        )
        return operation_state(operation)

    @delete(
        "/{disk_name:str}",
        status_code=200,
        operation_id="delete_disk",
        summary="Delete a persistent disk (soft delete with retention)",
        responses=error_responses(404, 409, 410, 422),
    )
    async def remove(
        self, request: Request[Identity, Any, Any], disk_name: FromPath[str], desk: NamedDependency[Desk]
    ) -> Response[OperationRequested]:
        """The disk's name is free at once. The disk can be restored until the day that the answer names."""
        outcome = await delete_disk(
            desk.database, desk.relay, user_id=request.user.user_id, name=check_name(disk_name, _NAME_LOC),
            operation_id=uuid4(), retention=timedelta(days=desk.settings.disk_retention_days),
            key=await idempotency_key(request), cipher=desk.cipher, now=desk.clock(),
        )  # fmt: skip
        return replayable(Outcome(requested(outcome.answer), outcome.replayed))

    @post(
        "/{disk_name:str}/restore",
        status_code=200,
        operation_id="restore_disk",
        summary="Bring back a deleted disk",
        responses=error_responses(404, 409, 410, 422),
    )
    async def restore(
        self, request: Request[Identity, Any, Any], disk_name: FromPath[str], desk: NamedDependency[Desk]
    ) -> Response[OperationRequested]:
        """If several disks of that name are deleted, the one that was deleted last is restored."""
        outcome = await restore_disk(
            desk.database, desk.relay, user_id=request.user.user_id, name=check_name(disk_name, _NAME_LOC),
            operation_id=uuid4(), limits=desk.limits, key=await idempotency_key(request), cipher=desk.cipher,
            now=desk.clock(),
        )  # fmt: skip
        return replayable(Outcome(requested(outcome.answer), outcome.replayed))

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
        request: Request[Identity, Any, Any],
        disk_name: FromPath[str],
        data: JSONBody[RenameDiskRequest],
        desk: NamedDependency[Desk],
    ) -> Response[RenameAnswer]:
        """The disk has its new name at once. What AWS did not update is listed, and retried in the background."""
        outcome = await desk.renaming.rename(
            user_id=request.user.user_id, name=check_name(disk_name, _NAME_LOC), new_name=data.new_name,
            key=await idempotency_key(request),
        )  # fmt: skip
        return replayable(Outcome(rename_answer(outcome.answer.renamed, outcome.answer.report), outcome.replayed))

    @get(
        "/{disk_name:str}/snapshots",
        operation_id="list_disk_snapshots",
        summary="List the snapshots of a disk",
        responses=error_responses(404),
    )
    async def show_snapshots(
        self,
        request: Request[Identity, Any, Any],
        disk_name: FromPath[str],
        desk: NamedDependency[Desk],
        limit: FromQuery[Annotated[int, Parameter(ge=1, le=500)]] = 50,
        offset: FromQuery[Annotated[int, Parameter(ge=0, le=2**31)]] = 0,
    ) -> SnapshotList:
        """The disk's snapshots, newest first."""
        name = check_name(disk_name, _NAME_LOC)
        page = await list_snapshots(desk.database, user_id=request.user.user_id, name=name, limit=limit, offset=offset)
        return SnapshotList(snapshots=[snapshot_info(snapshot) for snapshot in page.snapshots], total=page.total)

    @post(
        "/{disk_name:str}/snapshots",
        status_code=200,
        operation_id="create_disk_snapshot",
        summary="Take a snapshot of a disk that is not in use",
        responses=error_responses(404, 409, 410, 422),
    )
    async def take_snapshot(
        self, request: Request[Identity, Any, Any], disk_name: FromPath[str], desk: NamedDependency[Desk]
    ) -> Response[OperationRequested]:
        """The answer comes at once. Poll the operation to learn when the snapshot is complete."""
        outcome = await request_snapshot(
            desk.database, desk.relay, desk.reconciler, user_id=request.user.user_id,
            name=check_name(disk_name, _NAME_LOC), operation_id=uuid4(), key=await idempotency_key(request),
            cipher=desk.cipher, now=desk.clock(),
        )  # fmt: skip
        return replayable(Outcome(requested(outcome.answer), outcome.replayed))

    @get(
        "/{disk_name:str}/content",
        operation_id="get_disk_content",
        summary="List the content of a disk",
        responses=error_responses(404),
    )
    async def show_content(
        self, request: Request[Identity, Any, Any], disk_name: FromPath[str], desk: NamedDependency[Desk]
    ) -> DiskContent:
        """The files that were on the disk when the last job that used it ended."""
        name = check_name(disk_name, _NAME_LOC)
        disk, content = await get_content(desk.database, user_id=request.user.user_id, name=name)
        return disk_content(disk, content)
