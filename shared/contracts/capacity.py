"""Capacity's events."""

from datetime import datetime
from typing import ClassVar
from uuid import UUID

import msgspec

from shared.contracts.events import EventData

EXPLAIN_SUBJECT = "gpudev.rpc.capacity.explain"
UNPLACED_SUBJECT = "gpudev.rpc.capacity.unplaced"
ZONE_SUBJECT = "gpudev.rpc.capacity.zone"


class LeaseEvent(EventData, frozen=True, kw_only=True):
    """An event about a job's place in the queue or its GPUs; the entity is the job.

    Its `sequence` counts capacity's changes of this job; it is not the version of the job itself.
    """

    DOMAIN: ClassVar[str] = "capacity"
    job_id: UUID

    @property
    def entity_id(self) -> str:
        """The job's id."""
        return str(self.job_id)


class JobQueued(LeaseEvent, frozen=True, kw_only=True):
    """The job's place in the queue, or what is known of its start, has changed."""

    EVENT: ClassVar[str] = "queued"
    gpu_type: str
    position: int
    """1 is the head of the queue of its GPU type."""
    estimated_start_at: datetime | None = None
    """None when unknowable."""
    reason: str | None = None
    """Why it does not start now, for a person."""
    estimated_start_p90_at: datetime | None = None
    """Nine of ten jobs start before; `estimated_start_at` is what one in two do. None when unknowable."""


class LeaseGranted(LeaseEvent, frozen=True, kw_only=True):
    EVENT: ClassVar[str] = "granted"
    epoch: int
    """Rises with each lease of this job; whoever writes under an older one is refused."""
    node: str
    gpu_count: int
    backfilled: bool = False
    """It went ahead of a job that could not start, without delaying it."""


class LeaseRevoked(LeaseEvent, frozen=True, kw_only=True):
    """The lease was taken back; a job that had not started is in the queue again, one that had has lost its node."""

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


class ExplainRequest(msgspec.Struct, frozen=True):
    job_id: UUID
    """Of a job whose owner asks: capacity does not check."""


class Sooner(msgspec.Struct, frozen=True, kw_only=True):
    """What would start sooner than the job as it was submitted."""

    gpu_count: int
    gpu_type: str
    max_duration_seconds: int | None = None
    """The time box must be no longer; None: as long as was asked for."""
    start_at: datetime | None = None
    """Its p50; None: at once."""
    text: str
    """For a person: '4 GPUs instead of 8: now'."""


class Explanation(msgspec.Struct, frozen=True, kw_only=True):
    """What a job waits for."""

    waiting: bool
    """False: it is not in the queue; what is below is then null, 0 or empty."""
    position: int | None = None
    """1 is the head of the queue of its GPU type."""
    jobs_ahead: int = 0
    gpus_ahead: int = 0
    """GPUs that the jobs ahead wait for."""
    priority: int = 0
    estimated_start_at: datetime | None = None
    """p50; None when unknowable."""
    estimated_start_p90_at: datetime | None = None
    reason: str | None = None
    """What it waits for."""
    sooner: tuple[Sooner, ...] = ()


class UnplacedRequest(msgspec.Struct, frozen=True):
    job_ids: list[UUID]
    """Of jobs that wait; 1,000 at most."""
    published_up_to: int = 0
    """Place in the stream by which their events were published: what is under way up to there is not missing. 0: nobody
    knows, and what is told is a suspicion."""


class UnplacedReply(msgspec.Struct, frozen=True):
    job_ids: list[UUID]
    """Those of them that have no place in the queue; none while events up to that place are still under way."""


class ZoneRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Where would a job that is submitted now start soonest?"""

    zones: tuple[str, ...]
    """Availability zones to choose from."""
    gpu_type: str
    gpu_count: int
    duration_seconds: int


class ZoneReply(msgspec.Struct, frozen=True):
    zone: str | None
    """None: no node of these zones could run the job, even if it were empty."""
