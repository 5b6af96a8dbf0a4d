"""Jobs' events and the states that users see."""

from datetime import datetime
from enum import StrEnum
from typing import ClassVar
from uuid import UUID

from shared.contracts.events import EventData


class JobStatus(StrEnum):
    PENDING = "pending"
    QUEUED = "queued"
    PREPARING = "preparing"
    ACTIVE = "active"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    EXPIRED = "expired"


class JobEvent(EventData, frozen=True, kw_only=True):
    """An event about a job; the entity is the job."""

    DOMAIN: ClassVar[str] = "jobs"
    job_id: UUID
    user_id: int
    """Owner, auth's integer id."""
    username: str
    status: JobStatus
    """After the change."""

    @property
    def entity_id(self) -> str:
        """The job's id."""
        return str(self.job_id)


class JobSubmitted(JobEvent, frozen=True, kw_only=True):
    EVENT: ClassVar[str] = "submitted"
    instance_type: str
    gpu_type: str
    gpu_count: int
    duration_seconds: int
    submitted_at: datetime
    """Order in the queue."""
    waits_for_disk: bool
    """True: it has its place in the queue but must not start before `ready`."""
    disk_id: UUID | None = None
    availability_zone: str | None = None
    """Where its disk is; None when it has none."""


class JobReady(JobEvent, frozen=True, kw_only=True):
    """What it waited for (its disk) is there: it may start when its turn comes."""

    EVENT: ClassVar[str] = "ready"
    availability_zone: str | None = None
    """Where its disk is, if that was not known at `submitted`; None when it has none or that was known."""


class JobPreparing(JobEvent, frozen=True, kw_only=True):
    EVENT: ClassVar[str] = "preparing"
    node: str
    epoch: int
    """Of the lease that it starts under."""


class JobRequeued(JobEvent, frozen=True, kw_only=True):
    """Its lease was taken back before it started; it is queued again."""

    EVENT: ClassVar[str] = "requeued"
    epoch: int
    """Of the lease that it lost."""
    reason: str


class JobStarted(JobEvent, frozen=True, kw_only=True):
    EVENT: ClassVar[str] = "started"
    node: str
    epoch: int
    started_at: datetime
    expires_at: datetime


class JobRestarted(JobEvent, frozen=True, kw_only=True):
    """Its container ended, and was restarted: processes and what was in memory are gone, its time goes on."""

    EVENT: ClassVar[str] = "restarted"
    restarts: int
    """So far."""
    reason: str
    """How it ended, for a person."""


class JobExpiring(JobEvent, frozen=True, kw_only=True):
    EVENT: ClassVar[str] = "expiring"
    expires_at: datetime
    minutes_left: int
    """30, 15 or 5."""


class JobExtended(JobEvent, frozen=True, kw_only=True):
    EVENT: ClassVar[str] = "extended"
    expires_at: datetime
    extension_seconds: int


class JobPrioritised(JobEvent, frozen=True, kw_only=True):
    """An operator has moved it in the queue."""

    EVENT: ClassVar[str] = "prioritised"
    priority: int
    """Higher goes first; 0 unless an operator said otherwise."""


class JobUserRequested(JobEvent, frozen=True, kw_only=True):
    """Its owner asked that a GitHub user's SSH keys open it; `user_added` or `user_refused` follows."""

    EVENT: ClassVar[str] = "user_requested"
    github_username: str


class JobUserAdded(JobEvent, frozen=True, kw_only=True):
    EVENT: ClassVar[str] = "user_added"
    github_username: str


class JobUserRefused(JobEvent, frozen=True, kw_only=True):
    EVENT: ClassVar[str] = "user_refused"
    github_username: str
    reason: str


class JobJupyterRequested(JobEvent, frozen=True, kw_only=True):
    """Its owner wants JupyterLab on or off; `jupyter_enabled`, `jupyter_disabled` or `jupyter_failed` follows."""

    EVENT: ClassVar[str] = "jupyter_requested"
    wanted: bool
    """True: on."""


class JobJupyterEnabled(JobEvent, frozen=True, kw_only=True):
    """JupyterLab answers; where and with which token is told to the owner alone."""

    EVENT: ClassVar[str] = "jupyter_enabled"


class JobJupyterDisabled(JobEvent, frozen=True, kw_only=True):
    EVENT: ClassVar[str] = "jupyter_disabled"


class JobJupyterFailed(JobEvent, frozen=True, kw_only=True):
    EVENT: ClassVar[str] = "jupyter_failed"
    wanted: bool
    """What could not be done: True: to start it."""
    reason: str


class JobLost(JobEvent, frozen=True, kw_only=True):
    """Its node was lost: it is over for its user, but its pod may live on; GPUs and disk stay held until `ended`."""

    EVENT: ClassVar[str] = "lost"
    node: str
    epoch: int
    reason: str


class JobCancelRequested(JobEvent, frozen=True, kw_only=True):
    EVENT: ClassVar[str] = "cancel_requested"
    reason: str | None = None
    """Who cancels it and why, for its owner."""


class JobEnded(JobEvent, frozen=True, kw_only=True):
    """The job is over and its pod is confirmed gone: GPUs and disk may be given back."""

    EVENT: ClassVar[str] = "ended"
    ended_at: datetime
    exit_code: int | None = None
    """Of the command; None when there was none or it never ended by itself."""
    failure_reason: str | None = None
    """For a person; None unless failed."""
    epoch: int = 0
    """Of the last lease; 0 when it never had one."""
