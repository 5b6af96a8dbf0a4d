"""Claims: at most one job has a disk.

provisional ──submitted──► confirmed ──ended──► released
     │  ▲                                          ▲
     │  └──submitted late, disk still free──┐      │
     └──no submitted in time, or no disk──► dropped ┘ (ended)
"""

from datetime import datetime, timedelta
from enum import StrEnum
from uuid import UUID

import msgspec

from services.disks.domain.disk import MAX_SIZE_FOR_JOB_GB, MIN_SIZE_GB, Disk, DiskState, check_name
from shared.errors import Conflict, InvalidInput, Problem


class ClaimState(StrEnum):
    PROVISIONAL = "provisional"
    """Asked for; the job's `submitted` event has not come yet."""
    CONFIRMED = "confirmed"
    DROPPED = "dropped"
    """Not confirmed in time, or its disk could not be made; may be taken anew."""
    RELEASED = "released"
    """The job has ended; for good."""


class ClaimWish(msgspec.Struct, frozen=True, kw_only=True):
    """A job's wish for a disk."""

    job_id: UUID
    user_id: int
    username: str
    disk_name: str
    size_gb: int | None
    """None: any size of an old disk, the default for a new one."""
    at: datetime
    provisional_for: timedelta


class DiskInUse(Conflict):
    def __init__(self, name: str, job_id: UUID) -> None:
        super().__init__(f"Disk '{name}' is in use by job {job_id}")


class JobCannotClaim(Conflict):
    """The job has ended, or holds another disk, or the id is another user's: the same text for all."""

    def __init__(self) -> None:
        super().__init__("This job id cannot claim a disk (any more)")


def check_wish(wish: ClaimWish) -> None:
    """Refuse a name or a size that no job may ask for.

    Raises:
        InvalidInput: Which one, and what is allowed.
    """
    check_name(wish.disk_name, ("body", "disk_name"))
    if wish.size_gb is not None and not MIN_SIZE_GB <= wish.size_gb <= MAX_SIZE_FOR_JOB_GB:
        text = f"Must be {MIN_SIZE_GB} to {MAX_SIZE_FOR_JOB_GB}"
        raise InvalidInput([Problem("value_error", ("body", "disk_size_gb"), text)])


def check_size(wish: ClaimWish, size_gb: int) -> None:
    """Refuse a size that is not the disk's.

    Raises:
        InvalidInput: With the disk's size.
    """
    if wish.size_gb is not None and wish.size_gb != size_gb:
        text = f"Disk '{wish.disk_name}' exists with {size_gb} GB"
        raise InvalidInput([Problem("value_error", ("body", "disk_size_gb"), text)])


def lost_claim_text(disk: Disk) -> str:
    """Why a job whose claim was dropped does not get the disk back."""
    if disk.state is DiskState.FAILED:
        return f"Disk '{disk.name}' could not be made"
    if disk.deleted_at is not None:
        return f"Disk '{disk.name}' was deleted before the job was submitted"
    return f"Disk '{disk.name}' is in use by job {disk.job_id}"
