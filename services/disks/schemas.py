"""Wire structs of the disks service, in the contract's key order; what is added comes last."""

from datetime import date, datetime
from typing import Annotated
from uuid import UUID

import msgspec
from msgspec import UNSET, UnsetType

from services.disks.domain.content import Content, as_text, message_of
from services.disks.domain.disk import (
    MAX_SIZE_GB,
    MIN_SIZE_GB,
    NAME_RULE,
    NAME_TEXT,
    Disk,
    owner_label,
)
from services.disks.domain.operation import Action, Operation
from services.disks.domain.rename_answer import Renamed, TagReport
from services.disks.domain.snapshot import Snapshot
from shared.contracts.disks import ListingEntry
from shared.web.response import Answer
from shared.web.validation import PLAIN_TEXT

DiskName = Annotated[
    str,
    # `$` alone would let a line end pass
    msgspec.Meta(pattern=rf"^{NAME_RULE}$(?!\n)", description=NAME_TEXT, examples=["my-training-data"]),
]


NAME_LOC = ("path", "disk_name")
"""Where a disk is named in a path."""


class CreateDiskRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    disk_name: DiskName
    size_gb: Annotated[int, msgspec.Meta(ge=MIN_SIZE_GB, le=MAX_SIZE_GB, examples=[500])] | UnsetType = UNSET
    """Default: 100, or the size of the snapshot that the disk is created from."""
    from_snapshot: Annotated[str, msgspec.Meta(min_length=1, max_length=64, pattern=PLAIN_TEXT)] | None = None
    """Id of one of your snapshots, whose content the disk starts with. Null: the disk starts empty."""


class RenameDiskRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    new_name: DiskName


class OperationRequested(Answer, frozen=True, kw_only=True):
    operation_id: UUID
    disk_name: str
    action: Annotated[str, msgspec.Meta(examples=["create"])]
    message: Annotated[str, msgspec.Meta(examples=["Disk creation request queued successfully"])]
    requested_at: datetime


class DiskInfo(Answer, frozen=True, kw_only=True):
    disk_name: str
    user_id: Annotated[str, msgspec.Meta(examples=["jschmidt@meta.com"])]
    size_gb: int
    created_at: datetime
    last_used: datetime | None
    """When a job last released the disk."""
    in_use: bool
    """Claimed by a job that has not ended."""
    reservation_id: UUID | None
    """That job."""
    is_backing_up: bool
    is_deleted: bool
    snapshot_count: int
    delete_date: date | None
    """Day on which a deleted disk is removed for good."""
    disk_id: UUID
    """Immutable, unlike the name."""
    status: Annotated[str, msgspec.Meta(examples=["available"])]
    """creating or available; purging once the retention of a deleted disk is over."""
    availability_zone: str


class DiskList(msgspec.Struct, frozen=True, kw_only=True):
    disks: list[DiskInfo]
    total: int
    """On all pages together."""


class OperationState(Answer, frozen=True, kw_only=True):
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
    """Whether the operation is over, successfully or not."""
    action: Annotated[str, msgspec.Meta(examples=["create"])]
    disk_id: UUID


class RenameAnswer(msgspec.Struct, frozen=True, kw_only=True):
    message: Annotated[str, msgspec.Meta(examples=["Disk renamed from 'old' to 'new' (3 snapshots updated)"])]
    old_name: str
    new_name: str
    snapshots_updated: int
    errors: list[str] | UnsetType = UNSET
    """What AWS did not update yet, and why; it is retried in the background. Absent when there are no errors."""
    operation_id: UUID
    """Completed when every snapshot in AWS carries the new name."""


class SnapshotInfo(Answer, frozen=True, kw_only=True):
    snapshot_id: UUID
    """Also the id of the operation that takes it."""
    ebs_snapshot_id: str | None
    """AWS's id; null until the snapshot exists in AWS."""
    created_at: datetime
    size_gb: int
    """Of the disk."""
    reservation_id: UUID | None
    """The job after whose end it was taken; null when a user requested it."""
    state: Annotated[str, msgspec.Meta(examples=["completed"])]
    """pending, completed or failed."""
    completed_at: datetime | None
    error: str | None


class SnapshotList(msgspec.Struct, frozen=True, kw_only=True):
    snapshots: list[SnapshotInfo]
    total: int
    """On all pages together."""


class DiskContent(Answer, frozen=True, kw_only=True):
    disk_name: str
    content: str | None
    """The listing as text, one line for each entry; null when there is none."""
    s3_path: None
    """Always null: listings are kept with the disk."""
    snapshot_date: datetime | None
    """When the listing was taken."""
    message: str | None
    """Why there is no listing; null when there is one."""
    reservation_id: UUID | None
    """The job after which the listing was taken."""
    size_bytes: int | None
    """Of everything on the disk."""
    entries: list[ListingEntry]
    """The tree to depth 3."""
    truncated: bool
    """Whether the listing is incomplete."""
    listed_at: datetime | None
    """When the listing was taken; null when there is none."""
    listed_after_job: UUID | None
    """The job that had just ended then."""
    missed_after_job: UUID | None
    """A later job that ended without a listing; what is listed is older than that job's end."""


_REQUESTED = {
    Action.CREATE: "Disk creation request queued successfully",
    Action.DELETE: "Disk deletion request queued successfully. Will be deleted on {delete_date}",
    Action.RESTORE: "Disk restored",
    Action.SNAPSHOT: "Snapshot request queued successfully",
}


def requested(operation: Operation) -> OperationRequested:
    """The answer to a request."""
    return OperationRequested(
        operation_id=operation.id,
        disk_name=operation.disk_name,
        action=operation.action,
        message=_REQUESTED[Action(operation.action)].format(delete_date=operation.delete_date),
        requested_at=operation.created_at,
    )


def rename_answer(renamed: Renamed, report: TagReport) -> RenameAnswer:
    """The answer to a rename, in the contract's words."""
    if report.total == 0:
        count = "no snapshots found"
    elif report.updated == report.total:
        count = f"{report.updated} snapshots updated"
    else:
        count = f"{report.updated}/{report.total} snapshots updated"
    return RenameAnswer(
        message=f"Disk renamed from '{renamed.old_name}' to '{renamed.new_name}' ({count})",
        old_name=renamed.old_name,
        new_name=renamed.new_name,
        snapshots_updated=report.updated,
        errors=report.errors or UNSET,
        operation_id=renamed.operation_id,
    )


def snapshot_info(snapshot: Snapshot) -> SnapshotInfo:
    """A snapshot on the wire."""
    return SnapshotInfo(
        snapshot_id=snapshot.id,
        ebs_snapshot_id=snapshot.snapshot_id,
        created_at=snapshot.created_at,
        size_gb=snapshot.size_gb,
        reservation_id=snapshot.job_id,
        state=snapshot.status,
        completed_at=snapshot.completed_at,
        error=snapshot.error,
    )


def disk_content(disk: Disk, content: Content) -> DiskContent:
    """What is on a disk, on the wire."""
    listing = content.listing
    return DiskContent(
        disk_name=disk.name,
        content=None if listing is None else as_text(listing),
        s3_path=None,
        snapshot_date=content.taken_at,
        message=message_of(content, disk.job_id),
        reservation_id=content.job_id,
        size_bytes=None if listing is None else listing.size_bytes,
        entries=[] if listing is None else listing.entries,
        truncated=listing is not None and listing.truncated,
        listed_at=content.taken_at,
        listed_after_job=content.job_id,
        missed_after_job=content.missed_job_id,
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
