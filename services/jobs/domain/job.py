"""A job as the rules see it."""

from datetime import datetime
from enum import Enum
from uuid import UUID

import msgspec

from shared.contracts.jobs import JobStatus

ENDED_STATUSES = frozenset({JobStatus.COMPLETED, JobStatus.FAILED, JobStatus.CANCELLED, JobStatus.EXPIRED})

WAITING_STATUSES = frozenset({JobStatus.PENDING, JobStatus.QUEUED})


class Phase(Enum):
    """Where a job stands, finer than what users see."""

    PENDING = "pending"
    """Waits for its disk."""
    QUEUED = "queued"
    """Waits for GPUs."""
    PREPARING = "preparing"
    """Has GPUs; its pod is being made."""
    GIVING_BACK = "giving back"
    """Its lease goes back as soon as its pod is confirmed gone; then it is queued again."""
    ACTIVE = "active"
    ENDING = "ending"
    """Its outcome is decided; it ends as soon as its pod is confirmed gone."""
    HELD = "held"
    """Over for its user, but its pod may live on a node that is lost: GPUs and disk stay held."""
    ENDED = "ended"
    """Over, and everything was given back. Nothing leads out of here."""


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """One row of `jobs` less the sealed values of its environment, which only the maker of its Secret reads."""

    id: UUID
    user_id: int
    """Owner, auth's integer id."""
    username: str
    name: str | None = None
    image: str
    command: str | None = None
    """None: the pod idles until its time is up."""
    instance_type: str
    gpu_type: str
    gpu_count: int
    duration_seconds: int
    disk_name: str | None = None
    disk_id: UUID | None = None
    availability_zone: str | None = None
    ebs_volume_id: str | None = None
    env_var_names: list[str] = []
    github_user: str | None = None
    jupyter_enabled: bool = False
    jupyter_url: str | None = None
    jupyter_port: int | None = None
    secondary_users: list[str] = []

    status: JobStatus
    """What users see."""
    outcome: JobStatus | None = None
    """How it ends, decided before its pod is deleted; only a cancel changes it afterwards."""
    requeue_reason: str | None = None
    """Why its lease goes back; None when it does not."""
    version: int = 1
    """Rises by one with each event."""
    revision: int = 1
    """Rises by one with each write of the row; guards writes that were decided on an older one."""
    submit_message_id: int
    cancel_message_id: int | None = None

    epoch: int = 0
    """Of its newest lease; 0 before the first."""
    node: str | None = None
    """Node of its lease; None while it has none."""
    capacity_sequence: int = 0
    """Capacity's newest change that was taken in."""
    queue_position: int | None = None
    estimated_start_at: datetime | None = None

    pod_name: str | None = None
    pod_uid: str | None = None
    """None until the pod and what belongs to it are known to exist."""
    node_ip: str | None = None
    node_port: int | None = None
    fault: str | None = None
    """Kind of trouble its pod has in starting; None when there is none."""
    fault_since: datetime | None = None

    detail: str | None = None
    """What is going on right now, for a person."""
    status_reason: str | None = None
    """Why it is in its status, for a person."""
    failure_reason: str | None = None
    exit_code: int | None = None
    warning: str | None = None
    warned_minutes: int | None = None
    """The last warning that was sent for the current end, in minutes before it."""

    created_at: datetime
    updated_at: datetime
    granted_at: datetime | None = None
    launched_at: datetime | None = None
    expires_at: datetime | None = None
    ended_at: datetime | None = None
    released_at: datetime | None = None
    """When its pod was confirmed gone and `ended` was told; None before."""

    @property
    def phase(self) -> Phase:
        """Where it stands."""
        if self.released_at is not None:
            return Phase.ENDED
        if self.status in ENDED_STATUSES:
            return Phase.HELD
        if self.outcome is not None:
            return Phase.ENDING
        if self.requeue_reason is not None:
            return Phase.GIVING_BACK
        return Phase(self.status.value)
