"""Operations: what is to be done about a disk, and how it went."""

from collections.abc import Mapping
from datetime import date, datetime
from enum import StrEnum
from uuid import UUID

import msgspec

from services.disks.domain.state_tables import Transition
from shared.contracts.audit import AuditObject


class OperationStatus(StrEnum):
    QUEUED = "queued"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"

    @property
    def ended(self) -> bool:
        """Whether the outcome is known."""
        return self in {OperationStatus.COMPLETED, OperationStatus.FAILED}


class OperationEvent(StrEnum):
    LEASED = "leased"
    """By a worker, which alone works it until the lease is over."""
    POSTPONED = "postponed"
    """To rest between two passes, or to hold the lease longer."""
    DONE = "done"
    REFUSED = "refused"
    """AWS will never do it."""
    SUPERSEDED = "superseded"
    """A newer operation does what was left to do."""


_OPEN = (OperationStatus.QUEUED, OperationStatus.RUNNING)
OPERATION_TABLE: Mapping[OperationEvent, Transition[OperationStatus]] = {
    OperationEvent.LEASED: Transition(_OPEN, OperationStatus.RUNNING),
    OperationEvent.POSTPONED: Transition((OperationStatus.RUNNING,), OperationStatus.RUNNING),
    OperationEvent.DONE: Transition((OperationStatus.RUNNING,), OperationStatus.COMPLETED),
    OperationEvent.REFUSED: Transition((OperationStatus.RUNNING,), OperationStatus.FAILED),
    OperationEvent.SUPERSEDED: Transition(_OPEN, OperationStatus.COMPLETED),
}


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

    def audited(self) -> list[AuditObject]:
        """What the request was about."""
        return [AuditObject("disk", str(self.disk_id), self.disk_name)]


class NewOperation(msgspec.Struct, frozen=True, kw_only=True):
    """An operation that is to be recorded."""

    id: UUID
    disk_id: UUID
    disk_name: str
    action: Action
    at: datetime
    job_id: UUID | None = None
    new_name: str | None = None
    """Of a rename."""
    ended: bool = False
    """True: it is done with the transaction that records it."""
    not_before: datetime | None = None
    """When it may be worked at the earliest; None: at once."""

    @property
    def status(self) -> OperationStatus:
        """That it begins with."""
        return OperationStatus.COMPLETED if self.ended else OperationStatus.QUEUED

    def answer(self, *, deleted_at: datetime | None = None, delete_date: date | None = None) -> Operation:
        """The answer to its user.

        Args:
            deleted_at: Of the disk.
            delete_date: Of the disk.
        """
        return Operation(
            id=self.id,
            disk_id=self.disk_id,
            disk_name=self.disk_name,
            action=self.action,
            status=self.status,
            error=None,
            created_at=self.at,
            updated_at=self.at,
            deleted_at=deleted_at,
            delete_date=delete_date,
        )


class Work(msgspec.Struct, frozen=True, kw_only=True):
    """An operation that this worker alone may work, until its lease is over."""

    id: UUID
    disk_id: UUID
    disk_name: str
    """At the time of the request."""
    action: Action
    job_id: UUID | None
    """Job that caused it; None when a user or nobody did."""
    lease: int
    """Proof of the lease: 1 for the first, more when AWS may have been asked before."""
    failures: int
    """Attempts in a row that brought nothing."""
    created_at: datetime
    traceparent: str | None = None
    """Of the request that it is of; None: nobody traces it."""
    user_id: int
    size_gb: int
    """Of the disk."""
    availability_zone: str
    volume_id: str | None
    """None while the volume is being made."""
    name_now: str
    """Of the disk, at the time of the lease."""
    source_snapshot_id: str | None
    """AWS's id of the snapshot that the disk begins with; None: it begins empty."""

    @property
    def operation_id(self) -> UUID | None:
        """By which the user who asked can follow it; None when nobody but a job waits for it."""
        return None if self.job_id else self.id
