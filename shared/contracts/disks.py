"""Disks' events and its RPC."""

from datetime import datetime
from typing import ClassVar
from uuid import UUID

import msgspec

from shared.contracts.events import EventData

CLAIM_SUBJECT = "gpudev.rpc.disks.claim"


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
