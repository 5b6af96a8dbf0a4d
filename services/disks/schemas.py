"""Wire structs of the disks service, in the contract's key order; what is added comes last."""

from datetime import date, datetime
from typing import Annotated
from uuid import UUID

import msgspec

from services.disks.domain.disk import (
    DEFAULT_SIZE_GB,
    MAX_SIZE_GB,
    MIN_SIZE_GB,
    NAME_RULE,
    NAME_TEXT,
    Disk,
    Operation,
    owner_label,
)

DiskName = Annotated[
    str,
    # `$` alone would let a line end pass
    msgspec.Meta(pattern=rf"^{NAME_RULE}$(?!\n)", description=NAME_TEXT, examples=["my-training-data"]),
]


class CreateDiskRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    disk_name: DiskName
    size_gb: Annotated[int, msgspec.Meta(ge=MIN_SIZE_GB, le=MAX_SIZE_GB, examples=[500])] = DEFAULT_SIZE_GB


class OperationRequested(msgspec.Struct, frozen=True, kw_only=True):
    operation_id: UUID
    disk_name: str
    action: Annotated[str, msgspec.Meta(examples=["create"])]
    message: Annotated[str, msgspec.Meta(examples=["Disk creation request queued successfully"])]
    requested_at: datetime


class DiskInfo(msgspec.Struct, frozen=True, kw_only=True):
    disk_name: str
    user_id: Annotated[str, msgspec.Meta(examples=["jschmidt@meta.com"])]
    size_gb: int
    created_at: datetime
    last_used: datetime | None
    """When a job last gave it back."""
    in_use: bool
    """Claimed by a job that has not ended."""
    reservation_id: UUID | None
    """That job."""
    is_backing_up: bool
    is_deleted: bool
    snapshot_count: int
    delete_date: date | None
    """Day on which a deleted disk is gone for good."""
    disk_id: UUID
    """Immutable, unlike the name."""
    status: Annotated[str, msgspec.Meta(examples=["available"])]
    """creating or available."""
    availability_zone: str


class DiskList(msgspec.Struct, frozen=True, kw_only=True):
    disks: list[DiskInfo]
    total: int
    """Of all pages together."""


class OperationState(msgspec.Struct, frozen=True, kw_only=True):
    operation_id: UUID
    disk_name: str
    """At the time of the request."""
    status: Annotated[str, msgspec.Meta(examples=["completed"])]
    """queued, running, completed or failed."""
    error: str | None
    is_deleted: bool
    delete_date: date | None
    created_at: datetime
    last_updated: datetime
    completed: bool
    """The outcome, good or bad, is known."""
    action: Annotated[str, msgspec.Meta(examples=["create"])]
    disk_id: UUID


def requested(operation: Operation) -> OperationRequested:
    """The answer to a request to make a disk."""
    return OperationRequested(
        operation_id=operation.id,
        disk_name=operation.disk_name,
        action=operation.action,
        message="Disk creation request queued successfully",
        requested_at=operation.created_at,
    )


def disk_info(disk: Disk, email_domain: str) -> DiskInfo:
    """A disk on the wire."""
    return DiskInfo(
        disk_name=disk.name,
        user_id=owner_label(disk.username, email_domain),
        size_gb=disk.size_gb,
        created_at=disk.created_at,
        last_used=disk.last_used,
        in_use=disk.job_id is not None,
        reservation_id=disk.job_id,
        is_backing_up=disk.backing_up,
        is_deleted=disk.deleted_at is not None,
        snapshot_count=disk.snapshot_count,
        delete_date=disk.delete_date,
        disk_id=disk.id,
        status=disk.state,
        availability_zone=disk.availability_zone,
    )


def operation_state(operation: Operation) -> OperationState:
    """An operation on the wire."""
    return OperationState(
        operation_id=operation.id,
        disk_name=operation.disk_name,
        status=operation.status,
        error=operation.error,
        is_deleted=operation.deleted_at is not None,
        delete_date=operation.delete_date,
        created_at=operation.created_at,
        last_updated=operation.updated_at,
        completed=operation.status.ended,
        action=operation.action,
        disk_id=operation.disk_id,
    )
