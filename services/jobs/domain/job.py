"""A job as the rules see it."""

from datetime import datetime
from enum import Enum, StrEnum
from uuid import UUID

import msgspec

from services.jobs.domain.environment import HOME
from shared.contracts.jobs import JobStatus

ENDED_STATUSES = frozenset({JobStatus.COMPLETED, JobStatus.FAILED, JobStatus.CANCELLED, JobStatus.EXPIRED})

OPEN_STATUSES = frozenset(JobStatus) - ENDED_STATUSES

WAITING_STATUSES = frozenset({JobStatus.PENDING, JobStatus.QUEUED})

AWAITS_DISK = "Waiting for its disk; it keeps its place in the queue"
POSITION_UNKNOWN = "Its place in the queue is being computed"


class Phase(Enum):
    """Where a job stands, finer than what users see."""

    PENDING = "pending"
    """Waits for its disk."""
    QUEUED = "queued"
    """Waits for GPUs."""
    PREPARING = "preparing"
    """Has GPUs; its pod is being made."""
    STARTING = "starting"
    """Its time counts; for its user it is still preparing: it was submitted with Jupyter, which does not answer yet."""
    GIVING_BACK = "giving back"
    """Its lease goes back as soon as its pod is confirmed gone; then it is queued again."""
    ACTIVE = "active"
    ENDING = "ending"
    """Its outcome is decided; it ends as soon as its pod is confirmed gone."""
    HELD = "held"
    """Over for its user, but its pod may live on a node that is lost: GPUs and disk stay held."""
    ENDED = "ended"
    """Over, and everything was given back. Nothing leads out of here."""


class UserState(StrEnum):
    """How far a GitHub user's access to a job is."""

    REQUESTED = "requested"
    DELAYED = "delayed"
    """GitHub or the pod could not be reached; it is tried again."""
    FETCHED = "fetched"
    """Their keys are stored, and not yet known to be in the pod."""
    ADDED = "added"
    REFUSED = "refused"


class JobUser(msgspec.Struct, frozen=True, kw_only=True):
    """A GitHub user whose SSH keys open the job, or should."""

    name: str
    """As asked for; GitHub's names differ by more than case."""
    state: UserState
    reason: str | None = None
    """Why it is delayed or refused, for a person."""
    first: bool = False
    """Named at submit: their keys are in the pod from its start, where they can be had in time."""
    message_id: int | None = None
    """Of the request; None for the first."""
    requested_at: datetime


class UnshownExtension(msgspec.Struct, frozen=True, kw_only=True):
    """An extension that has taken effect and is not shown yet, with what its owner sees instead."""

    until: datetime
    """By the database's clock."""
    expires_at: datetime
    duration_seconds: int
    warning: str | None


class KeptLog(msgspec.Struct, frozen=True, kw_only=True):
    """How far the log of a job's pod is stored: its row of `job_logs`, less the log."""

    kept: bool = False
    """It is stored, or a part of it."""
    final: bool = False
    """What is stored is all that its command wrote, as far as it is kept."""
    tries: int = 0
    """How often it could not be had from its pod."""


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """One row of `jobs` and what is wanted in the one of `job_access`.

    Less the sealed values of its environment, which only the maker of its Secret reads.
    """

    id: UUID
    user_id: int
    """Owner, auth's integer id."""
    username: str
    name: str | None = None
    image: str
    command: str | None = None
    """None: the pod idles until its time is up."""
    working_dir: str | None = None
    """Where its user wants the command to start; None: nothing was said."""
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
    users: list[JobUser] = []
    """Whose SSH keys open it, in the order of the requests; `github_user` first."""
    ssh_host_keys: list[str] | None = None
    """Public keys of its pod's SSH server, as type and base64; empty: there are none to be had; None: not read yet."""
    jupyter_wanted: bool = False
    """What its owner asked for last."""
    jupyter_enabled: bool = False
    """It answers; before the job is active: it will be started."""
    jupyter_revision: int = 0
    """Number of the owner's last wish; 0 before the first."""
    jupyter_applied: int = 0
    """Number of the wish that the pod is known to follow, or could not."""
    jupyter_token_sealed: bytes | None = None
    """Encrypted; None while it is not wanted."""
    jupyter_requested_at: datetime | None = None
    jupyter_message_id: int | None = None
    """Of the last wish; None before the first, and when that was the submission."""
    jupyter_error: str | None = None
    """Why the last wish could not be fulfilled, for a person."""
    jupyter_port: int | None = None
    """Node port of JupyterLab; None until its Service is made, and where pods have none."""

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
    """Number of capacity's newest event that was applied."""
    priority: int = 0
    """Set by an operator; capacity orders the queue by it, higher first."""
    queue_position: int | None = None
    estimated_start_at: datetime | None = None

    pod_name: str | None = None
    pod_uid: str | None = None
    """None until the pod and what belongs to it are known to exist."""
    node_ip: str | None = None
    node_port: int | None = None
    pod_ends_at: datetime | None = None
    """Kubernetes itself ends its pod then or later, so it has no time beyond; None: not known."""
    restarts: int = 0
    """How often its container was started again, as far as its owner was told."""
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
    unshown_extensions: list[UnshownExtension] = []
    """Oldest first; some of them may be shown by now."""
    ended_at: datetime | None = None
    released_at: datetime | None = None
    """When its pod was confirmed gone and `ended` was told; None before."""
    traceparent: str | None = None
    """Of the request that submitted it; None: nobody traces it."""

    @property
    def start_directory(self) -> str | None:
        """Where it starts; None: where its image says, which is not known here."""
        if self.working_dir is not None:
            return self.working_dir
        return None if self.disk_name is None and self.command is not None else HOME

    @property
    def secondary_users(self) -> list[str]:
        """GitHub users that were added after the submission."""
        return [user.name for user in self.users if user.state is UserState.ADDED and not user.first]

    @property
    def access_error(self) -> str | None:
        """Whose keys do not open the job and why, for a person; None when nobody's are missing."""
        reasons = [f"{user.name}: {user.reason}" for user in self.users if user.reason is not None]
        return "; ".join(reasons) or None

    @property
    def reason(self) -> str | None:
        """Why it is in its status; of a job that waits, what for, also before capacity has said so."""
        if self.status is JobStatus.PENDING:
            return self.status_reason or AWAITS_DISK
        if self.status is JobStatus.QUEUED and self.queue_position is None:
            return f"{self.status_reason}. {POSITION_UNKNOWN}" if self.status_reason else POSITION_UNKNOWN
        return self.status_reason

    @property
    def has_keys(self) -> bool:
        """Somebody's SSH keys open it."""
        return any(user.state is UserState.ADDED for user in self.users)

    @property
    def wants_access_work(self) -> bool:
        """Its running pod lacks keys or the Jupyter that its owner asked for, or its host keys are to be read."""
        if self.phase not in {Phase.STARTING, Phase.ACTIVE}:
            return False
        open_users = any(user.state not in {UserState.ADDED, UserState.REFUSED} for user in self.users)
        return open_users or self.awaits_jupyter or self.awaits_host_keys

    @property
    def awaits_host_keys(self) -> bool:
        """The keys of its pod's SSH server are not known, and somebody may want to enter: without users nobody can."""
        return self.ssh_host_keys is None and any(user.state is not UserState.REFUSED for user in self.users)

    @property
    def awaits_jupyter(self) -> bool:
        """Its pod is not known to follow its owner's last wish about Jupyter."""
        return self.jupyter_applied < self.jupyter_revision

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
        if self.status is JobStatus.PREPARING and self.launched_at is not None:
            return Phase.STARTING
        return Phase(self.status.value)
