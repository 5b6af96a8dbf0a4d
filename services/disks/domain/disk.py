"""What a disk is: its name, its size, its states."""

import re
from datetime import date, datetime
from enum import StrEnum
from uuid import UUID

import msgspec

from shared.errors import InvalidInput, Problem

NAME_RULE = r"[A-Za-z0-9_-]{1,63}"
NAME_TEXT = "Must be 1 to 63 letters, digits, hyphens or underscores"
MIN_SIZE_GB = 10
MAX_SIZE_GB = 16384
MAX_SIZE_FOR_JOB_GB = 10000
"""A job may ask for a smaller disk than a direct request."""
DEFAULT_SIZE_GB = 100

_NAME = re.compile(NAME_RULE)


class DiskState(StrEnum):
    """Of the volume behind the disk; deletion is apart from it."""

    CREATING = "creating"
    AVAILABLE = "available"
    FAILED = "failed"
    """AWS refused the volume: the disk never was, and its name is free."""
    PURGING = "purging"
    """Its time after deletion is over: snapshots and volume are being deleted."""
    PURGED = "purged"
    """Nothing of it is left but its history."""


class OperationStatus(StrEnum):
    QUEUED = "queued"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"

    @property
    def ended(self) -> bool:
        """Whether the outcome is known."""
        return self in {OperationStatus.COMPLETED, OperationStatus.FAILED}


class Action(StrEnum):
    CREATE = "create"
    DELETE = "delete"
    RESTORE = "restore"
    RENAME = "rename"
    SNAPSHOT = "snapshot"
    TAG = "tag"
    """Of our own accord: a Name tag in AWS is not the disk's name."""
    PRUNE = "prune"
    """Of our own accord: delete snapshots that need not be kept."""
    PURGE = "purge"
    """Of our own accord: the time after deletion is over."""
    CLAIM = "claim"
    """Only in events: no operation is made for it."""


class Disk(msgspec.Struct, frozen=True, kw_only=True):
    """A disk as its owner sees it."""

    id: UUID
    """Immutable; the name may change."""
    user_id: int
    username: str
    name: str
    size_gb: int
    state: DiskState
    availability_zone: str
    """Where the volume is, or will be."""
    volume_id: str | None
    """None while the volume is being made."""
    created_at: datetime
    last_used: datetime | None
    """When a job last gave it back; None when none has."""
    deleted_at: datetime | None
    delete_date: date | None
    """Day on which a deleted disk is purged; None when it is not deleted."""
    job_id: UUID | None
    """Job that has claimed it; None when it is free."""
    backing_up: bool
    snapshot_count: int
    purge_at: datetime | None
    """When a deleted disk is purged; None when it is not deleted."""
    name_tag: str | None
    """The Name tag of its volume, as last written; None while there is no volume."""

    @property
    def ready(self) -> bool:
        """Whether a job can use it now."""
        return self.state is DiskState.AVAILABLE and not self.backing_up and self.deleted_at is None


class NewDisk(msgspec.Struct, frozen=True, kw_only=True):
    """A disk that is to be made."""

    disk_id: UUID
    operation_id: UUID
    user_id: int
    username: str
    name: str
    size_gb: int
    availability_zone: str
    requested_at: datetime
    job_id: UUID | None = None
    """Job whose claim makes it; None when a user asks for it."""
    source_snapshot: UUID | None = None
    """Snapshot that it begins with; None: it begins empty."""


class Operation(msgspec.Struct, frozen=True, kw_only=True):
    """A request to change a disk, and how it went."""

    id: UUID
    disk_id: UUID
    disk_name: str
    """At the time of the request."""
    action: str
    status: OperationStatus
    error: str | None
    """For a person; None unless failed."""
    created_at: datetime
    updated_at: datetime
    deleted_at: datetime | None
    """Of the disk."""
    delete_date: date | None
    """Of the disk."""


def check_name(name: str, loc: tuple[str, ...]) -> str:
    """`name` if the whole of it is a disk's name.

    Args:
        name: From outside.
        loc: Where it was given, for the problem.

    Raises:
        InvalidInput: It is none.
    """
    if not _NAME.fullmatch(name):
        raise InvalidInput([Problem("string_pattern_mismatch", loc, NAME_TEXT)])
    return name


def owner_label(username: str, email_domain: str) -> str:
    """How answers name the owner: username@domain, or the username alone when there is no domain."""
    return f"{username}@{email_domain}" if email_domain else username
