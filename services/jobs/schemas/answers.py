"""Bodies of answers in the contract's key order, and how they are made of the service's values."""

import math
from collections.abc import Sequence
from datetime import datetime
from enum import StrEnum
from uuid import UUID

import msgspec

from services.jobs.domain.accepted_answer import Accepted, AcceptedBatch
from services.jobs.domain.environment import HOME
from services.jobs.domain.job import AWAITS_DISK, POSITION_UNKNOWN, Job, Phase
from services.jobs.domain.job_host import job_host
from services.jobs.domain.job_list import JobQuery
from services.jobs.settings import JobsSettings
from shared.contracts.capacity import Explanation
from shared.contracts.jobs import JobStatus
from shared.database import Row
from shared.idempotency import Outcome
from shared.web.response import Answer


class SubmitAnswer(Answer, frozen=True, kw_only=True):
    job_id: UUID
    status: JobStatus
    """`queued` for a new job. A repeated request, and one with `Prefer: wait`, is answered with the current status."""
    message: str
    estimated_start_time: datetime | None = None
    queue_position: int | None = None
    """Null while it is being computed: `status_reason` says so."""
    status_reason: str | None = None


class SubmitBatchAnswer(msgspec.Struct, frozen=True, kw_only=True):
    jobs: list[SubmitAnswer]
    """One for each submission, in their order."""
    total: int
    message: str


class ActionStatus(StrEnum):
    """What is known of a request's outcome."""

    REQUESTED = "requested"
    """Not known yet; the job will show it."""
    SUCCEEDED = "succeeded"
    REFUSED = "refused"
    """The message says why."""


class ActionAnswer(msgspec.Struct, frozen=True, kw_only=True):
    job_id: UUID
    action: str
    status: ActionStatus
    """With `Prefer: wait`, the outcome if it was known in time."""
    message: str


class StatusChange(Answer, frozen=True, kw_only=True):
    status: JobStatus
    at: datetime
    reason: str | None
    """Null when there is none."""


class JobHistory(msgspec.Struct, frozen=True, kw_only=True):
    job_id: UUID
    history: list[StatusChange]
    """Oldest first."""


class JobAnswer(Answer, frozen=True, kw_only=True):
    job_id: UUID
    reservation_id: UUID
    user_id: str
    """Username, with the organisation's domain where one is configured."""
    status: JobStatus
    gpu_type: str
    gpu_count: int
    instance_type: str
    duration_hours: float
    created_at: datetime
    expires_at: datetime | None
    """Null before the job is active."""
    name: str | None
    pod_name: str | None
    node_ip: str | None
    node_port: int | None
    ssh_command: str | None
    """To be pasted into a terminal. Null until at least one user's keys are in place; `access_error` says why not."""
    jupyter_enabled: bool
    jupyter_url: str | None
    jupyter_token: str | None
    github_user: str | None
    image: str
    command: str | None
    disk_name: str | None
    exit_code: int | None
    failure_reason: str | None
    status_reason: str | None
    current_detailed_status: str | None
    queue_position: int | None
    estimated_start_time: datetime | None
    estimated_wait_minutes: int | None
    launched_at: datetime | None
    ended_at: datetime | None
    updated_at: datetime
    secondary_users: list[str]
    warning: str | None
    jupyter_port: int | None
    ebs_volume_id: str | None
    env_var_names: list[str]
    access_error: str | None
    """Users whose SSH keys could not be put in place, and why."""
    jupyter_error: str | None
    """Why Jupyter could not be started or stopped as asked."""
    home: str
    """`HOME`, where sessions start: on the job's disk if it has one, otherwise scratch space that ends with the job."""
    working_dir: str | None
    """Directory in which the command starts; null: the image's own working directory."""
    grace_seconds: int
    """Seconds between SIGTERM and SIGKILL at the job's end."""
    ssh_host_keys: list[str]
    """Public keys of the SSH server of an active job, as known_hosts has them behind the host's name; empty until they
    are read from its pod, a moment after it is active and somebody may enter it."""


class JobList(msgspec.Struct, frozen=True, kw_only=True):
    jobs: list[JobAnswer]
    total: int
    limit: int
    offset: int


class SoonerAnswer(Answer, frozen=True, kw_only=True):
    gpu_count: int
    gpu_type: str
    max_duration_hours: float | None
    """The job would start then with a duration of at most this; null: with the duration that it asked for."""
    estimated_start_time: datetime | None
    """Null: at once."""
    text: str


class ExplainAnswer(Answer, frozen=True, kw_only=True):
    job_id: UUID
    status: JobStatus
    waiting: bool
    """False: the job is not in the queue; the fields below are then null, 0 or empty."""
    reason: str | None
    """What it waits for."""
    queue_position: int | None
    """1 is the head of the queue of its GPU type."""
    jobs_ahead: int
    gpus_ahead: int
    """GPUs that the jobs ahead are waiting for."""
    priority: int
    estimated_start_time: datetime | None
    """The median: one in two jobs starts before it. Null when it cannot be estimated."""
    estimated_start_time_p90: datetime | None
    """Nine in ten jobs start before it. Null when it cannot be estimated."""
    would_start_sooner: list[SoonerAnswer]


def explain_answer(job_id: UUID, status: JobStatus, found: Explanation) -> ExplainAnswer:
    """What capacity says of a job's place in the queue."""
    return ExplainAnswer(
        job_id=job_id,
        status=status,
        waiting=found.waiting,
        reason=found.reason,
        queue_position=found.position,
        jobs_ahead=found.jobs_ahead,
        gpus_ahead=found.gpus_ahead,
        priority=found.priority,
        estimated_start_time=found.estimated_start_at,
        estimated_start_time_p90=found.estimated_start_p90_at,
        would_start_sooner=[
            SoonerAnswer(
                gpu_count=one.gpu_count,
                gpu_type=one.gpu_type,
                max_duration_hours=None if one.max_duration_seconds is None else one.max_duration_seconds / 3600,
                estimated_start_time=one.start_at,
                text=one.text,
            )
            for one in found.sooner
        ],
    )


_NO_KEYS = (
    "No SSH keys open this job, because it has no github_user: while it is active, "
    "POST /v1/jobs/{job_id}/users with a github_username adds that user's keys"
)
_MAY_GET_KEYS = frozenset(
    {Phase.PENDING, Phase.QUEUED, Phase.PREPARING, Phase.GIVING_BACK, Phase.STARTING, Phase.ACTIVE}
)


def submit_answer(outcome: Outcome[Accepted]) -> Outcome[SubmitAnswer]:
    """The contract's answer to a submission: whatever it waits for, an accepted job is queued."""
    accepted = outcome.answer
    text = f"Job submitted successfully to queue (message ID: {accepted.message_id})"
    pending = accepted.status is JobStatus.PENDING
    answer = SubmitAnswer(
        job_id=accepted.job_id,
        status=JobStatus.QUEUED if pending else accepted.status,
        message=text,
        status_reason=AWAITS_DISK if pending else POSITION_UNKNOWN if accepted.status is JobStatus.QUEUED else None,
    )
    return Outcome(answer, outcome.replayed)


def submit_batch_answer(outcome: Outcome[AcceptedBatch]) -> Outcome[SubmitBatchAnswer]:
    """The answer to submissions that were made together: that of each."""
    jobs = [submit_answer(Outcome(accepted)).answer for accepted in outcome.answer.jobs]
    text = "1 job submitted" if len(jobs) == 1 else f"{len(jobs)} jobs submitted"
    answer = SubmitBatchAnswer(jobs=jobs, total=len(jobs), message=f"{text} successfully to queue")
    return Outcome(answer, outcome.replayed)


def action_answer(outcome: Outcome[Accepted], action: str, text: str) -> Outcome[ActionAnswer]:
    """The contract's answer to a request whose outcome shows on the job."""
    accepted = outcome.answer
    message = f"{text} (message ID: {accepted.message_id})"
    status = ActionStatus.REQUESTED
    answer = ActionAnswer(job_id=accepted.job_id, action=action, status=status, message=message)
    return Outcome(answer, outcome.replayed)


def history_answer(job: Job, rows: Sequence[Row]) -> JobHistory:
    """A job's statuses, oldest first."""
    changes = [StatusChange(status=JobStatus(row["status"]), at=row["at"], reason=row["reason"]) for row in rows]
    return JobHistory(job_id=job.id, history=changes)


def others_jobs(jobs: Sequence[Job], total: int, query: JobQuery, now: datetime, settings: JobsSettings) -> JobList:
    """A page of others' jobs as operators see them: without tokens."""
    return JobList(
        jobs=[job_answer(job, now, settings, None) for job in jobs],
        total=total,
        limit=query.limit,
        offset=query.offset,
    )


def job_answer(job: Job, now: datetime, settings: JobsSettings, token: str | None) -> JobAnswer:
    """A job as its owner sees it at `now`, with its Jupyter token while that opens anything."""
    started = job.status is not JobStatus.PREPARING  # its time may count before it is active
    return JobAnswer(
        job_id=job.id,
        reservation_id=job.id,
        user_id=f"{job.username}@{settings.user_email_domain}" if settings.user_email_domain else job.username,
        status=job.status,
        gpu_type=job.gpu_type,
        gpu_count=job.gpu_count,
        instance_type=job.instance_type,
        duration_hours=round(job.duration_seconds / 3600, 4),
        created_at=job.created_at,
        expires_at=job.expires_at if started else None,
        name=job.name,
        pod_name=job.pod_name,
        node_ip=_host(job, settings),
        node_port=job.node_port,
        ssh_command=_ssh_command(job, settings),
        jupyter_enabled=job.jupyter_enabled,
        jupyter_url=_jupyter_url(job, token, settings),
        jupyter_token=token,
        github_user=job.github_user,
        image=job.image,
        command=job.command,
        disk_name=job.disk_name,
        exit_code=job.exit_code,
        failure_reason=job.failure_reason,
        status_reason=job.reason,
        current_detailed_status=job.detail,
        queue_position=job.queue_position,
        estimated_start_time=job.estimated_start_at,
        estimated_wait_minutes=_minutes_until(job.estimated_start_at, now),
        launched_at=job.launched_at if started else None,
        ended_at=job.ended_at,
        updated_at=job.updated_at,
        secondary_users=job.secondary_users,
        warning=job.warning,
        jupyter_port=job.jupyter_port,
        ebs_volume_id=job.ebs_volume_id,
        env_var_names=job.env_var_names,
        access_error=_access_error(job, settings),
        jupyter_error=job.jupyter_error,
        home=HOME,
        working_dir=job.start_directory,
        grace_seconds=settings.grace_seconds,
        ssh_host_keys=(job.ssh_host_keys or []) if job.phase is Phase.ACTIVE else [],
    )


def _host(job: Job, settings: JobsSettings) -> str | None:
    """How users reach the job's node; None before that is known."""
    return None if job.node_ip is None else settings.node_host.format(ip=job.node_ip, node=job.node)


def _ssh_command(job: Job, settings: JobsSettings) -> str | None:
    if settings.tools_image is None or job.phase is not Phase.ACTIVE or job.node_port is None or not job.has_keys:
        return None  # it works when pasted, and without a key it would be refused
    return settings.ssh_command.format(host=_host(job, settings), port=job.node_port)


def _access_error(job: Job, settings: JobsSettings) -> str | None:
    without_keys = settings.tools_image is not None and not job.users and job.phase in _MAY_GET_KEYS
    return _NO_KEYS.format(job_id=job.id) if without_keys else job.access_error


def _jupyter_url(job: Job, token: str | None, settings: JobsSettings) -> str | None:
    if token is None or job.jupyter_port is None:
        return None
    if settings.job_domain is not None:
        return settings.job_url.format(host=job_host(job.id, settings.job_domain), token=token)
    return settings.jupyter_url.format(host=_host(job, settings), port=job.jupyter_port, token=token)


def _minutes_until(moment: datetime | None, now: datetime) -> int | None:
    return None if moment is None else max(0, math.ceil((moment - now).total_seconds() / 60))
