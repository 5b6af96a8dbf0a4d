"""Claims: at most one job has a disk.

provisional ──submitted──► confirmed ──ended──► released
     │  ▲                                          ▲
     │  └──submitted late, disk still free──┐      │
     └──no submitted in time, or no disk──► dropped ┘ (ended)
"""

from collections.abc import Mapping
from datetime import datetime, timedelta
from enum import StrEnum
from uuid import UUID

import msgspec

from services.disks.domain.disk import MAX_SIZE_FOR_JOB_GB, MIN_SIZE_GB, Disk, DiskState, check_name
from services.disks.domain.state_tables import Transition
from shared.errors import Conflict, InvalidInput, Problem


class ClaimState(StrEnum):
    PROVISIONAL = "provisional"
    """Asked for; the job's `submitted` event has not come yet."""
    CONFIRMED = "confirmed"
    DROPPED = "dropped"
    """Not confirmed in time, or its disk could not be made; may be taken anew."""
    RELEASED = "released"
    """The job has ended; for good."""


class ClaimEvent(StrEnum):
    ASKED = "asked"
    """By the job's submission, before it is written."""
    SUBMITTED = "submitted"
    SUBMITTED_LATE = "submitted_late"
    """The claim was dropped meanwhile, or names another disk; the disk is free."""
    ENDED = "ended"
    ENDED_WITHOUT = "ended_without"
    """The job had no disk any more when it ended."""
    DISK_FAILED = "disk_failed"
    EXPIRED = "expired"
    """No submission came in time."""


HOLDING = (ClaimState.PROVISIONAL, ClaimState.CONFIRMED)
"""States in which the job has the disk, and no other job can."""
_TAKEABLE = (ClaimState.PROVISIONAL, ClaimState.DROPPED)
CLAIM_TABLE: Mapping[ClaimEvent, Transition[ClaimState]] = {
    # these two are possible without a claim as well
    ClaimEvent.ASKED: Transition(_TAKEABLE, ClaimState.PROVISIONAL),
    ClaimEvent.SUBMITTED_LATE: Transition(_TAKEABLE, ClaimState.CONFIRMED),
    ClaimEvent.SUBMITTED: Transition((ClaimState.PROVISIONAL,), ClaimState.CONFIRMED),
    ClaimEvent.ENDED: Transition(HOLDING, ClaimState.RELEASED),
    ClaimEvent.ENDED_WITHOUT: Transition((ClaimState.DROPPED,), ClaimState.RELEASED),
    ClaimEvent.DISK_FAILED: Transition(HOLDING, ClaimState.DROPPED),
    ClaimEvent.EXPIRED: Transition((ClaimState.PROVISIONAL,), ClaimState.DROPPED),
}


class NewClaim(msgspec.Struct, frozen=True, kw_only=True):
    """A job's claim to a disk, as it asks for it."""

    job_id: UUID
    user_id: int
    username: str
    disk_name: str
    size_gb: int | None
    """None: any size of an old disk, the default for a new one."""
    at: datetime
    provisional_for: timedelta
    availability_zone: str
    """Of the disk, if it has to be made."""


class JobCannotClaim(Conflict):
    """The job has ended, or holds another disk, or the id is another user's: the same text for all."""

    def __init__(self) -> None:
        super().__init__("This job id cannot claim a disk (any more)")


def check_claim(wanted: NewClaim) -> None:
    """Refuse a name or a size that no job may ask for.

    Raises:
        InvalidInput: Which one, and what is allowed.
    """
    check_name(wanted.disk_name, ("body", "disk_name"))
    if wanted.size_gb is not None and not MIN_SIZE_GB <= wanted.size_gb <= MAX_SIZE_FOR_JOB_GB:
        text = f"Must be {MIN_SIZE_GB} to {MAX_SIZE_FOR_JOB_GB}"
        raise InvalidInput([Problem("value_error", ("body", "disk_size_gb"), text)])


def check_size(wanted: NewClaim, size_gb: int) -> None:
    """Refuse a size that is not the disk's.

    Raises:
        InvalidInput: With the disk's size.
    """
    if wanted.size_gb is not None and wanted.size_gb != size_gb:
        text = f"Disk '{wanted.disk_name}' exists with {size_gb} GB"
        raise InvalidInput([Problem("value_error", ("body", "disk_size_gb"), text)])


def lost_claim_text(disk: Disk) -> str:
    """Why a job whose claim was dropped does not get the disk back."""
    if disk.state is DiskState.FAILED:
        return f"Disk '{disk.name}' could not be made"
    if disk.deleted_at is not None:
        return f"Disk '{disk.name}' was deleted before the job was submitted"
    return f"Disk '{disk.name}' is in use by job {disk.job_id}"
