"""Answers. Fields that a newer service adds are passed over; those that an older one lacks are None or empty."""

from datetime import date, datetime
from typing import Any

import msgspec

WAITING = frozenset({"pending", "queued"})
"""Statuses of a job that waits for GPUs."""
ENDED = frozenset({"completed", "failed", "cancelled", "expired"})
"""Statuses that a job keeps."""


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """Base of all answers."""


class ApiInfo(Answer, frozen=True, kw_only=True):
    service: str
    version: str
    docs: str = ""
    health: str = ""
    auth: dict[str, str] = {}
    endpoints: dict[str, str] = {}


class ServiceHealth(Answer, frozen=True, kw_only=True):
    service: str
    status: str
    """healthy or unhealthy."""
    database: str = ""
    queue: str = ""
    faults: list[str] = []
    oldest_unpublished_seconds: float | None = None
    unprocessed_messages: int | None = None


class Health(Answer, frozen=True, kw_only=True):
    status: str
    """healthy or unhealthy."""
    database: str
    queue: str
    timestamp: datetime
    services: dict[str, ServiceHealth] = {}


class NewKey(Answer, frozen=True, kw_only=True):
    """Of a log-in or a rotation; the key is shown this once."""

    api_key: str
    key_prefix: str
    user_id: int
    username: str
    expires_at: datetime

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.key_prefix}_...)"


class Login(NewKey, frozen=True, kw_only=True):
    aws_arn: str
    ttl_hours: int
    """Life of the key, in hours."""

    __repr__ = NewKey.__repr__


class AwsSigning(Answer, frozen=True, kw_only=True):
    """What is signed by AWS Signature Version 4 for a log-in."""

    host: str
    region: str
    service: str
    body: str
    x_gpudev_login: str
    time: datetime


class Identity(Answer, frozen=True, kw_only=True):
    user_id: int
    username: str
    key_prefix: str
    expires_at: datetime
    is_operator: bool = False


class User(Answer, frozen=True, kw_only=True):
    user_id: int
    username: str
    account: str
    is_operator: bool
    created_at: datetime
    last_login_at: datetime
    disabled_at: datetime | None = None


class UserList(Answer, frozen=True, kw_only=True):
    users: list[User]
    total: int
    limit: int
    offset: int


class UserAction(Answer, frozen=True, kw_only=True):
    user_id: int
    username: str
    action: str
    status: str
    """disabled or enabled."""
    message: str = ""
    disabled_at: datetime | None = None
    keys_revoked: int = 0


class ConsoleCode(Answer, frozen=True, kw_only=True):
    code: str
    path: str
    """To be opened in a browser, behind the address of the API."""
    expires_at: datetime

    def __repr__(self) -> str:
        return f"{type(self).__name__}(...)"


class Key(Answer, frozen=True, kw_only=True):
    key_prefix: str
    created_at: datetime
    expires_at: datetime
    last_used: datetime | None = None
    current: bool = False
    """Whether it is the key of this request."""


class KeyList(Answer, frozen=True, kw_only=True):
    keys: list[Key]
    total: int
    limit: int = 0
    offset: int = 0


class RevokedKey(Answer, frozen=True, kw_only=True):
    key_prefix: str
    status: str
    revoked_at: datetime


class Submitted(Answer, frozen=True, kw_only=True):
    job_id: str
    status: str
    message: str = ""
    estimated_start_time: datetime | None = None
    queue_position: int | None = None
    status_reason: str | None = None


class SubmittedBatch(Answer, frozen=True, kw_only=True):
    jobs: list[Submitted]
    """One for each submission, in their order."""
    total: int
    message: str = ""


class ActionAnswer(Answer, frozen=True, kw_only=True):
    job_id: str
    action: str
    status: str
    """requested, succeeded or refused; the message says why."""
    message: str = ""


class Job(Answer, frozen=True, kw_only=True):
    job_id: str
    reservation_id: str
    user_id: str
    status: str
    gpu_type: str
    gpu_count: int
    instance_type: str
    duration_hours: float
    created_at: datetime
    expires_at: datetime | None = None
    name: str | None = None
    pod_name: str | None = None
    node_ip: str | None = None
    node_port: int | None = None
    ssh_command: str | None = None
    jupyter_enabled: bool = False
    jupyter_url: str | None = None
    jupyter_token: str | None = None
    github_user: str | None = None
    image: str | None = None
    command: str | None = None
    disk_name: str | None = None
    exit_code: int | None = None
    failure_reason: str | None = None
    status_reason: str | None = None
    current_detailed_status: str | None = None
    queue_position: int | None = None
    estimated_start_time: datetime | None = None
    estimated_wait_minutes: int | None = None
    launched_at: datetime | None = None
    ended_at: datetime | None = None
    updated_at: datetime | None = None
    secondary_users: list[str] = []
    warning: str | None = None
    jupyter_port: int | None = None
    ebs_volume_id: str | None = None
    env_var_names: list[str] = []
    access_error: str | None = None
    jupyter_error: str | None = None
    home: str | None = None
    working_dir: str | None = None
    grace_seconds: int | None = None
    ssh_host_keys: list[str] = []

    @property
    def waits(self) -> bool:
        """Whether it is queued for GPUs."""
        return self.status in WAITING

    @property
    def ended(self) -> bool:
        """Whether it is over."""
        return self.status in ENDED


class JobList(Answer, frozen=True, kw_only=True):
    jobs: list[Job]
    total: int
    limit: int = 0
    offset: int = 0


class StatusChange(Answer, frozen=True, kw_only=True):
    status: str
    at: datetime
    reason: str | None = None


class JobHistory(Answer, frozen=True, kw_only=True):
    job_id: str
    history: list[StatusChange]
    """Oldest first."""


class Sooner(Answer, frozen=True, kw_only=True):
    """What would start before the job as it was asked for."""

    gpu_count: int
    gpu_type: str
    max_duration_hours: float | None = None
    estimated_start_time: datetime | None = None
    text: str = ""


class Explanation(Answer, frozen=True, kw_only=True):
    job_id: str
    status: str
    waiting: bool
    reason: str | None = None
    queue_position: int | None = None
    jobs_ahead: int = 0
    gpus_ahead: int = 0
    priority: int = 0
    estimated_start_time: datetime | None = None
    """One in two jobs starts before it."""
    estimated_start_time_p90: datetime | None = None
    """Nine in ten jobs start before it."""
    would_start_sooner: list[Sooner] = []


class Node(Answer, frozen=True, kw_only=True):
    name: str
    total: int
    in_use: int
    ready: bool
    schedulable: bool


class GpuType(Answer, frozen=True, kw_only=True):
    gpu_type: str
    total: int
    available: int
    in_use: int
    queued: int
    max_per_node: int
    max_placeable: int | None = None
    """GPUs of the largest job that would start now."""
    nodes: list[Node] = []
    as_of: datetime | None = None


class Availability(Answer, frozen=True, kw_only=True):
    availability: dict[str, GpuType]
    timestamp: datetime
    as_of: datetime | None = None


class Forecast(Answer, frozen=True, kw_only=True):
    """How well the estimates have held in the last 30 days."""

    starts: int
    started_before_p90: int
    share: float | None = None


class ClusterStatus(Answer, frozen=True, kw_only=True):
    total_gpus: int
    available_gpus: int
    in_use_gpus: int
    queued_gpus: int
    active_reservations: int
    preparing_reservations: int
    queued_reservations: int
    pending_reservations: int
    by_gpu_type: dict[str, GpuType]
    timestamp: datetime
    as_of: datetime | None = None
    forecast: Forecast | None = None


class Gpu(Answer, frozen=True, kw_only=True):
    state: str
    """free, own, others, foreign (held by something else in the cluster) or withheld (without CPU or memory)."""
    job_id: str | None = None
    """Of one's own jobs, and for operators of all."""


class FleetNode(Answer, frozen=True, kw_only=True):
    name: str
    gpu_type: str
    zone: str | None = None
    ready: bool
    schedulable: bool
    total: int
    """Allocatable GPUs."""
    gpus: list[Gpu]


class Fleet(Answer, frozen=True, kw_only=True):
    nodes: list[FleetNode]
    timestamp: datetime
    as_of: datetime | None = None


class QueuedJob(Answer, frozen=True, kw_only=True):
    position: int
    own: bool
    job_id: str | None = None
    """Of one's own jobs, and for operators of all."""
    gpu_count: int
    duration_hours: float
    priority: int
    submitted_at: datetime
    waits_for_disk: bool
    estimated_start_time: datetime | None = None
    """One in two jobs starts before it."""
    estimated_start_time_p90: datetime | None = None
    """Nine in ten jobs start before it."""


class TypeQueue(Answer, frozen=True, kw_only=True):
    gpu_type: str
    jobs: int
    gpus: int
    entries: list[QueuedJob]
    """The first 300."""


class Queue(Answer, frozen=True, kw_only=True):
    queues: list[TypeQueue]
    timestamp: datetime


class Choice(Answer, frozen=True, kw_only=True):
    instance_type: str
    gpu_type: str
    gpu_count: int
    starts_now: bool
    estimated_start_time: datetime | None = None
    estimated_start_time_p90: datetime | None = None
    reason: str | None = None
    """What it would wait for; None: it starts now."""


class Estimates(Answer, frozen=True, kw_only=True):
    duration_hours: float
    choices: list[Choice]
    timestamp: datetime


class Disk(Answer, frozen=True, kw_only=True):
    disk_name: str
    user_id: str
    size_gb: int
    created_at: datetime
    last_used: datetime | None = None
    in_use: bool = False
    reservation_id: str | None = None
    is_backing_up: bool = False
    is_deleted: bool = False
    snapshot_count: int = 0
    delete_date: date | None = None
    disk_id: str | None = None
    status: str | None = None
    availability_zone: str | None = None


class DiskList(Answer, frozen=True, kw_only=True):
    disks: list[Disk]
    total: int


class DiskOperation(Answer, frozen=True, kw_only=True):
    """A request about a disk that has been taken."""

    operation_id: str
    disk_name: str
    action: str
    message: str
    requested_at: datetime


class DiskOperationState(Answer, frozen=True, kw_only=True):
    operation_id: str
    disk_name: str
    status: str
    """queued, running, completed or failed."""
    error: str | None = None
    is_deleted: bool = False
    delete_date: date | None = None
    created_at: datetime
    last_updated: datetime
    completed: bool
    """The outcome, good or bad, is known."""
    action: str | None = None
    disk_id: str | None = None


class RenamedDisk(Answer, frozen=True, kw_only=True):
    message: str
    old_name: str
    new_name: str
    snapshots_updated: int
    errors: list[str] = []
    """What AWS did not take yet; it is tried again in the background."""
    operation_id: str | None = None


class Snapshot(Answer, frozen=True, kw_only=True):
    snapshot_id: str
    ebs_snapshot_id: str | None = None
    created_at: datetime
    size_gb: int
    reservation_id: str | None = None
    state: str
    completed_at: datetime | None = None
    error: str | None = None


class SnapshotList(Answer, frozen=True, kw_only=True):
    snapshots: list[Snapshot]
    total: int


class DiskEntry(Answer, frozen=True, kw_only=True):
    path: str
    type: str
    """file, directory, link or other."""
    size_bytes: int


class DiskContent(Answer, frozen=True, kw_only=True):
    disk_name: str
    content: str | None = None
    """The listing as text; None when there is none, and `message` says why."""
    s3_path: str | None = None
    snapshot_date: datetime | None = None
    message: str | None = None
    reservation_id: str | None = None
    size_bytes: int | None = None
    entries: list[DiskEntry] = []
    truncated: bool = False
    listed_at: datetime | None = None
    listed_after_job: str | None = None
    missed_after_job: str | None = None


class UsageRow(Answer, frozen=True, kw_only=True):
    date: date
    """In UTC."""
    username: str
    gpu_type: str
    gpu_hours: float
    user_id: int | None = None


class Usage(Answer, frozen=True, kw_only=True):
    first: date = msgspec.field(name="from")
    """First day that is counted."""
    last: date = msgspec.field(name="to")
    """Last day that is counted."""
    rows: list[UsageRow] = []
    """By date, username and GPU type; there is none where nothing was used."""


class AuditEntry(Answer, frozen=True, kw_only=True):
    at: datetime
    action: str
    """Operation id of a route, or a command of an administrator."""
    user_id: int | None = None
    username: str | None = None
    """None: an administrator with a shell."""
    key_prefix: str | None = None
    address: str | None = None
    object_kind: str
    """job, disk, key, user or webhook; of `gpudev-admin` also event, volume, snapshot, pods and the like."""
    object_id: str
    object_name: str | None = None
    request_id: str | None = None
    service: str = ""


class Audit(Answer, frozen=True, kw_only=True):
    entries: list[AuditEntry] = []
    """Newest first."""
    next: str | None = None
    """`before` of the next page; None: there is none."""


class Orphan(Answer, frozen=True, kw_only=True):
    """Something outside that nobody has, or that is not there."""

    kind: str
    """As in the metrics: pods, volume, node and others."""
    name: str
    finding: str
    """In a word."""
    message: str = ""
    job_id: str | None = None
    since: datetime | None = None


class OrphanList(Answer, frozen=True, kw_only=True):
    orphans: list[Orphan] = []
    """The first 500."""
    total: int = 0
    looked_at: datetime | None = None


class Event(Answer, frozen=True, kw_only=True):
    """Something that has happened; what `data` holds depends on the type (docs/events.md)."""

    id: str = ""
    """The same when the event comes again."""
    type: str
    """Such as dev.gpudev.jobs.started.v1; or `resync`: events before this are not kept any more, read the state."""
    source: str = ""
    subject: str = ""
    """Id of the job, disk or node that it is about, or a GPU type."""
    time: datetime | None = None
    sequence: int = 0
    """Of the events of one source about one subject: rises with each."""
    messageid: int | None = None
    requestid: str | None = None
    data: dict[str, Any] = {}
    last_id: str | None = None
    """What to give as `last_event_id` to go on after this event."""

    @property
    def name(self) -> str:
        """Such as `jobs.started`, or `resync`."""
        return self.type.removeprefix("dev.gpudev.").rpartition(".v")[0] or self.type


class Webhook(Answer, frozen=True, kw_only=True):
    webhook_id: str
    url: str
    types: list[str] = []
    job_id: str | None = None
    format: str = "events"
    created_at: datetime
    pending: int = 0
    """Messages that are still to be delivered."""
    parked: int = 0
    """Messages that were given up after a day."""
    delivered_at: datetime | None = None


class NewWebhook(Answer, frozen=True, kw_only=True):
    webhook_id: str
    url: str
    types: list[str] = []
    job_id: str | None = None
    format: str = "events"
    created_at: datetime
    secret: str
    """Signs the messages; shown this once."""


class WebhookList(Answer, frozen=True, kw_only=True):
    webhooks: list[Webhook]


class WebhookMessage(Answer, frozen=True, kw_only=True):
    message_id: str
    type: str
    status: str
    """pending, delivered or parked."""
    attempts: int = 0
    created_at: datetime
    next_attempt_at: datetime | None = None
    last_attempt_at: datetime | None = None
    last_status: int | None = None
    last_error: str | None = None


class WebhookDetails(Webhook, frozen=True, kw_only=True):
    messages: list[WebhookMessage] = []
    """The latest 50, those that were given up first."""


class WebhookAction(Answer, frozen=True, kw_only=True):
    webhook_id: str
    message: str
    message_id: str | None = None
