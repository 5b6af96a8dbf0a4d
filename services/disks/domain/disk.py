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


class DiskPhase(StrEnum):
    """State and deletion together: what decides which facts are possible."""

    CREATING = "creating"
    AVAILABLE = "available"
    DELETED = "deleted"
    """Marked for deletion; it can be restored."""
    FAILED = "failed"
    PURGING = "purging"
    PURGED = "purged"


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
    version: int
    """Of its newest event; 0 before the first."""

    @property
    def phase(self) -> DiskPhase:
        """By which the table decides what is possible."""
        if self.state is DiskState.AVAILABLE and self.deleted_at is not None:
            return DiskPhase.DELETED
        return DiskPhase(self.state.value)

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
