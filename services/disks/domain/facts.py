"""What can happen to a disk: requests of its owner, the life of its jobs, what came of it in AWS, and time."""

from datetime import datetime
from uuid import UUID

import msgspec


class Fact(msgspec.Struct, frozen=True, kw_only=True):
    pass


class VolumeMade(Fact, frozen=True, kw_only=True):
    volume_id: str
    availability_zone: str
    name_tag: str
    """As it was written, which a rename may have outrun."""
    operation_id: UUID | None
    """None: a job's claim made the disk."""


class VolumeRefused(Fact, frozen=True, kw_only=True):
    """AWS will never make it."""

    error: str
    operation_id: UUID | None
    """None: a job's claim made the disk."""
    job_id: UUID | None
    """The job that waits for it; None: none does."""


class ClaimAnnounced(Fact, frozen=True, kw_only=True):
    """The job is submitted, and can use the disk."""

    job_id: UUID


class ClaimLost(Fact, frozen=True, kw_only=True):
    """The job is submitted, and its claim cannot be had back."""

    job_id: UUID
    error: str


class ClaimReleased(Fact, frozen=True, kw_only=True):
    """The job has ended."""

    job_id: UUID


class DeletionRequested(Fact, frozen=True, kw_only=True):
    operation_id: UUID
    purge_at: datetime


class RestoreRequested(Fact, frozen=True, kw_only=True):
    operation_id: UUID


class RenameRequested(Fact, frozen=True, kw_only=True):
    operation_id: UUID
    new_name: str
    taken: bool
    """Whether another disk of the owner has that name."""


class SnapshotRequested(Fact, frozen=True, kw_only=True):
    """By the owner."""

    snapshot_id: UUID


class SnapshotDue(Fact, frozen=True, kw_only=True):
    """A job has used the disk and ended."""

    snapshot_id: UUID
    job_id: UUID


class SnapshotCompleted(Fact, frozen=True, kw_only=True):
    snapshot_id: UUID
    ebs_snapshot_id: str
    size_gb: int
    job_id: UUID | None
    """After whose end it was taken; None: the owner asked, or the sweep found it again."""


class SnapshotRefused(Fact, frozen=True, kw_only=True):
    """There will be no such snapshot."""

    snapshot_id: UUID
    error: str


class SnapshotRemoved(Fact, frozen=True, kw_only=True):
    """AWS has deleted it."""

    snapshot_id: UUID
    ebs_snapshot_id: str


class PurgeDue(Fact, frozen=True, kw_only=True):
    is_source: bool
    """Whether a disk is just being made from one of its snapshots."""


class VolumeRemoved(Fact, frozen=True, kw_only=True):
    """AWS has deleted it, and the snapshots before it."""
