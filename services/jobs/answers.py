"""From the service's values to its wire structs, and back for the query parameters that are more than a value."""

import math
import re
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Annotated

import msgspec

from services.jobs.domain.environment import HOME
from services.jobs.domain.job import AWAITS_DISK, PLACE_UNKNOWN, Job, Phase
from services.jobs.operations import Accepted, unseal_jupyter_token
from services.jobs.resources import Resources
from services.jobs.schemas import ActionAnswer, ActionStatus, JobAnswer, JobHistory, StatusChange, SubmitAnswer
from services.jobs.settings import JobsSettings
from shared.contracts.jobs import JobStatus
from shared.database import Row
from shared.errors import InvalidInput, Problem
from shared.idempotency import Outcome

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
        status_reason=AWAITS_DISK if pending else PLACE_UNKNOWN if accepted.status is JobStatus.QUEUED else None,
    )
    return Outcome(answer, outcome.replayed)


def action_answer(outcome: Outcome[Accepted], action: str, text: str) -> Outcome[ActionAnswer]:
    """The contract's answer to a request whose outcome shows on the job."""
    accepted = outcome.answer
    message = f"{text} (message ID: {accepted.message_id})"
    status = ActionStatus.REQUESTED
    answer = ActionAnswer(job_id=accepted.job_id, action=action, status=status, message=message)
    return Outcome(answer, outcome.replayed)


def hours_text(hours: float) -> str:
    """As in JSON: 2 and not 2.0."""
    return str(int(hours)) if hours.is_integer() else str(hours)


def history_answer(job: Job, rows: Sequence[Row]) -> JobHistory:
    """A job's statuses, oldest first."""
    changes = [StatusChange(status=JobStatus(row["status"]), at=row["at"], reason=row["reason"]) for row in rows]
    return JobHistory(job_id=job.id, history=changes)


def job_answer(job: Job, now: datetime, resources: Resources) -> JobAnswer:
    """A job as its owner sees it at `now`."""
    settings, token = resources.settings, _jupyter_token(job, resources)
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
    )


def read_statuses(text: str | None) -> list[JobStatus] | None:
    """Statuses in a comma list; None for no filter, which an empty list is too.

    Raises:
        InvalidInput: One of them is unknown.
    """
    if text is None or not text.strip():
        return None
    names = [name.strip() for name in text.split(",")]
    if any(name not in set(JobStatus) for name in names):
        message = f"Must be a comma-separated list of {', '.join(JobStatus)}"
        raise InvalidInput([Problem("literal_error", ("query", "status"), message)])
    return [JobStatus(name) for name in names]


def _host(job: Job, settings: JobsSettings) -> str | None:
    """How users reach the job's node; None before that is known."""
    return None if job.node_ip is None else settings.node_host.format(ip=job.node_ip, node=job.node)


def _jupyter_token(job: Job, resources: Resources) -> str | None:
    """None unless Jupyter answers with it."""
    is_on = job.phase is Phase.ACTIVE and job.jupyter_enabled and job.jupyter_applied == job.jupyter_revision
    if not is_on or job.jupyter_token_sealed is None:
        return None
    return unseal_jupyter_token(job, resources)


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
    return settings.jupyter_url.format(host=_host(job, settings), port=job.jupyter_port, token=token)


def read_since(text: str | None, now: datetime) -> datetime | None:
    """The moment that `since` means: an RFC 3339 time, or seconds before `now`; None when it is not given.

    Raises:
        InvalidInput: It is neither.
    """
    if text is None:
        return None
    if re.fullmatch(r"[0-9]{1,9}", text):
        return now - timedelta(seconds=int(text))
    try:
        moment: datetime = msgspec.convert(text, Annotated[datetime, msgspec.Meta(tz=True)])
    except msgspec.ValidationError:
        message = "Must be a time such as 2026-01-20T18:30:00Z, or a number of seconds"
        raise InvalidInput([Problem("value_error", ("query", "since"), message)]) from None
    return moment


def _minutes_until(moment: datetime | None, now: datetime) -> int | None:
    return None if moment is None else max(0, math.ceil((moment - now).total_seconds() / 60))
