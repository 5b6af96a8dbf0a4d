"""Disks' events and its RPC."""

from datetime import datetime
from typing import Annotated, ClassVar, Literal
from uuid import UUID

import msgspec

from shared.contracts.events import EventData

CLAIM_SUBJECT = "gpudev.rpc.disks.claim"
CONTENT_SUBJECT = "gpudev.rpc.disks.content"


class DiskEvent(EventData, frozen=True, kw_only=True):
    """An event about a disk; the entity is the disk, whatever its name."""

    DOMAIN: ClassVar[str] = "disks"
    disk_id: UUID
    user_id: int
    """Owner, auth's integer id."""
    disk_name: str

    @property
    def entity_id(self) -> str:
        """The disk's id."""
        return str(self.disk_id)


class DiskCreated(DiskEvent, frozen=True, kw_only=True):
    EVENT: ClassVar[str] = "created"
    size_gb: int
    volume_id: str
    availability_zone: str
    operation_id: UUID | None = None
    """None when a job's claim made the disk."""


class DiskClaimed(DiskEvent, frozen=True, kw_only=True):
    """The claim is confirmed and the disk can be used: its volume is there and nothing is being backed up."""

    EVENT: ClassVar[str] = "claimed"
    job_id: UUID
    volume_id: str
    availability_zone: str


class DiskReleased(DiskEvent, frozen=True, kw_only=True):
    EVENT: ClassVar[str] = "released"
    job_id: UUID
    released_at: datetime


class DiskSnapshotStarted(DiskEvent, frozen=True, kw_only=True):
    """A snapshot is wanted; the disk is being backed up until `snapshot_completed` or `operation_failed`."""

    EVENT: ClassVar[str] = "snapshot_started"
    operation_id: UUID
    """Also the snapshot's id."""
    job_id: UUID | None = None
    """Job that had used the disk; None when its owner asked."""


class DiskSnapshotCompleted(DiskEvent, frozen=True, kw_only=True):
    EVENT: ClassVar[str] = "snapshot_completed"
    operation_id: UUID
    ebs_snapshot_id: str
    size_gb: int
    """Of the volume."""
    job_id: UUID | None = None


class DiskSnapshotDeleted(DiskEvent, frozen=True, kw_only=True):
    """A snapshot that need not be kept is gone."""

    EVENT: ClassVar[str] = "snapshot_deleted"
    operation_id: UUID
    """That had made it."""
    ebs_snapshot_id: str


class DiskRenamed(DiskEvent, frozen=True, kw_only=True):
    """`disk_name` is the new one."""

    EVENT: ClassVar[str] = "renamed"
    operation_id: UUID
    old_name: str


class DiskDeleted(DiskEvent, frozen=True, kw_only=True):
    """Marked for deletion: its name is free, and it can be restored until it is purged."""

    EVENT: ClassVar[str] = "deleted"
    operation_id: UUID
    purge_at: datetime


class DiskRestored(DiskEvent, frozen=True, kw_only=True):
    EVENT: ClassVar[str] = "restored"
    operation_id: UUID


class DiskPurged(DiskEvent, frozen=True, kw_only=True):
    """Volume and snapshots are gone for good."""

    EVENT: ClassVar[str] = "purged"
    volume_id: str


class DiskOperationFailed(DiskEvent, frozen=True, kw_only=True):
    EVENT: ClassVar[str] = "operation_failed"
    operation_id: UUID | None
    """None when it was a job's claim that needed the disk."""
    action: str
    error: str
    """For a person."""
    job_id: UUID | None = None
    """Job whose claim cannot be met; None when no job waits."""


class ClaimRequest(msgspec.Struct, frozen=True, kw_only=True):
    job_id: UUID
    user_id: int
    username: str
    disk_name: str
    size_gb: int | None = None
    """Size for a disk that does not exist yet; None: the default for a new one, any for an old one."""
    gpu_type: str | None = None
    """This and the two below say what the job asks for, which decides the zone of a disk that does not exist yet; None:
    not known."""
    gpu_count: int | None = None
    duration_seconds: int | None = None


class Claim(msgspec.Struct, frozen=True, kw_only=True):
    """A provisional exclusive lease: confirmed by the job's `submitted` event, dropped after 60 s without it."""

    disk_id: UUID
    disk_name: str
    size_gb: int
    ready: bool
    """False: the disk is being made or backed up; `claimed` follows when it can be used."""
    volume_id: str | None = None
    """None while the volume is being made."""
    availability_zone: str | None = None


class ClaimReply(msgspec.Struct, frozen=True, kw_only=True):
    """Exactly one of the two is set."""

    claim: Claim | None = None
    refusal: "ClaimRefusal | None" = None


class ClaimRefusal(msgspec.Struct, frozen=True, kw_only=True):
    kind: str
    """conflict (in use, deleted meanwhile), invalid (another size) or unavailable."""
    text: str
    """For the user."""


Bytes = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
"""What a file system can hold."""


class ListingEntry(msgspec.Struct, frozen=True):
    """Pods tell it: only what is of this form is taken."""

    path: Annotated[str, msgspec.Meta(min_length=1, max_length=4096, pattern=r"^[^\x00]*$")]
    """Relative to the disk's root."""
    type: Literal["file", "directory", "link", "other"]
    size_bytes: Bytes
    """Of a directory: the sum below it."""


class Listing(msgspec.Struct, frozen=True):
    """What is on a disk, to depth 3, in order of paths."""

    size_bytes: Bytes
    """Of everything on it."""
    entries: Annotated[list[ListingEntry], msgspec.Meta(max_length=5000)]
    truncated: bool = False
    """Not everything is listed."""


class ContentReport(msgspec.Struct, frozen=True, kw_only=True):
    """What was on a disk when its job ended; told before `ended`, while the job still has the disk."""

    job_id: UUID
    disk_id: UUID
    epoch: int
    """Of the lease whose pod had the disk: an older one's report never replaces a newer one's."""
    taken_at: datetime
    listing: Listing


class ContentReply(msgspec.Struct, frozen=True, kw_only=True):
    stored: bool
    """False: the job does not have the disk (any more), or a newer listing is there."""
