"""The disks' routes: parse, call one operation, map."""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any
from uuid import uuid4

from litestar import Controller, Request, Response, get, post
from litestar.di import NamedDependency
from litestar.params import FromPath, FromQuery, JSONBody, Parameter

from services.disks.domain.disk import NewDisk, check_name
from services.disks.operations.disks import create_disk
from services.disks.queries import get_disk, get_operation, list_disks
from services.disks.schemas import (
    CreateDiskRequest,
    DiskInfo,
    DiskList,
    OperationRequested,
    OperationState,
    disk_info,
    operation_state,
    requested,
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
    reconciler: Wakes
    """Woken when there is a disk to make."""
    cipher: Cipher
    settings: DisksSettings


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
        responses=error_responses(400, 409, 422, body=True),
    )
    async def create(
        self, request: Request[Identity, Any, Any], data: JSONBody[CreateDiskRequest], desk: NamedDependency[Desk]
    ) -> Response[OperationRequested]:
        """The answer comes at once; the operation tells when the disk is there."""
        new = NewDisk(
            disk_id=uuid4(), operation_id=uuid4(), user_id=request.user.user_id, username=request.user.username,
            name=data.disk_name, size_gb=data.size_gb, availability_zone=desk.settings.availability_zone,
            requested_at=datetime.now(UTC),
        )  # fmt: skip
        key = await idempotency_key(request)
        outcome = await create_disk(desk.database, desk.reconciler, new=new, key=key, cipher=desk.cipher)
        return replayable(Outcome(requested(outcome.answer), outcome.replayed))

    @get(
        operation_id="list_disks",
        summary="List the persistent disks of the authenticated user",
        responses=error_responses(400),
    )
    async def list_own(
        self,
        request: Request[Identity, Any, Any],
        desk: NamedDependency[Desk],
        include_deleted: FromQuery[bool] = False,
        limit: FromQuery[Annotated[int, Parameter(ge=1, le=500)]] = 50,
        offset: FromQuery[Annotated[int, Parameter(ge=0, le=2**31)]] = 0,
    ) -> DiskList:
        """Newest first; deleted disks only on request."""
        page = await list_disks(
            desk.database, user_id=request.user.user_id, include_deleted=include_deleted, limit=limit, offset=offset
        )
        domain = desk.settings.user_email_domain
        return DiskList(disks=[disk_info(disk, domain) for disk in page.disks], total=page.total)

    @get(
        "/{disk_name:str}",
        operation_id="get_disk",
        summary="Get detailed information about a disk",
        responses=error_responses(400, 404),
    )
    async def show(
        self, request: Request[Identity, Any, Any], disk_name: FromPath[str], desk: NamedDependency[Desk]
    ) -> DiskInfo:
        """The disk of that name that is not deleted, else the newest deleted one."""
        name = check_name(disk_name, _NAME_LOC)
        disk = await get_disk(desk.database, user_id=request.user.user_id, name=name)
        return disk_info(disk, desk.settings.user_email_domain)

    @get(
        "/{disk_name:str}/operations/{operation_id:str}",
        operation_id="get_disk_operation",
        summary="Poll the status of a disk operation",
        responses=error_responses(400, 404),
    )
    async def show_operation(
        self,
        request: Request[Identity, Any, Any],
        disk_name: FromPath[str],
        operation_id: FromPath[str],
        desk: NamedDependency[Desk],
    ) -> OperationState:
        """Known for 90 days, by the disk's old and new name."""
        name = check_name(disk_name, _NAME_LOC)
        operation = await get_operation(
            desk.database, user_id=request.user.user_id, name=name, operation_id=operation_id
        )
        return operation_state(operation)
