"""Capacity's events."""

from datetime import datetime
from typing import ClassVar
from uuid import UUID

from shared.contracts.events import EventData


class LeaseEvent(EventData, frozen=True, kw_only=True):
    """An event about a job's place in the line or its GPUs; the entity is the job.

    Its `sequence` counts capacity's changes of this job; it is not the version of the job itself.
    """

    DOMAIN: ClassVar[str] = "capacity"
    job_id: UUID

    @property
    def entity_id(self) -> str:
        """The job's id."""
        return str(self.job_id)


class JobQueued(LeaseEvent, frozen=True, kw_only=True):
    """The job's place in the line, or what is known of its start, has changed."""

    EVENT: ClassVar[str] = "queued"
    gpu_type: str
    position: int
    """1 is the head of the line of its GPU type."""
    estimated_start_at: datetime | None = None
    """None when unknowable."""
    reason: str | None = None
    """Why it does not start now, for a person."""


class LeaseGranted(LeaseEvent, frozen=True, kw_only=True):
    EVENT: ClassVar[str] = "granted"
    epoch: int
    """Rises with each lease of this job; whoever writes under an older one is refused."""
    node: str
    gpu_count: int


class LeaseRevoked(LeaseEvent, frozen=True, kw_only=True):
    """The lease was taken back; a job that had not started is in the line again, one that had has lost its node."""

    EVENT: ClassVar[str] = "revoked"
    epoch: int
    reason: str


class LeaseReleased(LeaseEvent, frozen=True, kw_only=True):
    EVENT: ClassVar[str] = "released"
    epoch: int


class NodeChanged(EventData, frozen=True, kw_only=True):
    DOMAIN: ClassVar[str] = "capacity"
    EVENT: ClassVar[str] = "node_changed"
    node: str
    gpu_type: str | None
    total: int
    """Allocatable GPUs."""
    ready: bool
    schedulable: bool
    removed: bool = False

    @property
    def entity_id(self) -> str:
        """The node's name."""
        return self.node


class AvailabilityChanged(EventData, frozen=True, kw_only=True):
    DOMAIN: ClassVar[str] = "capacity"
    EVENT: ClassVar[str] = "availability_changed"
    gpu_type: str
    total: int
    available: int
    in_use: int
    queued: int
    """GPUs that are waited for, not jobs."""

    @property
    def entity_id(self) -> str:
        """The GPU type."""
        return self.gpu_type
