"""Writing new jobs, one or many: rows, events, audit and idempotency keys in one statement."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, TypeAlias
from uuid import UUID

import msgspec

from services.jobs import storage
from services.jobs.context import Context
from services.jobs.domain.accepted_answer import Accepted
from services.jobs.domain.access import BARE, first_users
from services.jobs.domain.job import Job
from services.jobs.domain.submission import Submission
from services.jobs.operations.seal import new_jupyter_token, seal_environment
from shared.audit import current_act
from shared.contracts.auth import Identity
from shared.contracts.disks import Claim
from shared.contracts.jobs import JobStatus, JobSubmitted
from shared.database import Database, Executor
from shared.database.group_commit import GroupCommit
from shared.encryption import Cipher
from shared.idempotency import IdempotencyKey, recorded_columns
from shared.messaging import Draft
from shared.messaging.outbox import draft_columns
from shared.tracing import current_traceparent


class NewJob(msgspec.Struct, frozen=True, kw_only=True):
    """A job before it is written; its message ID comes with that."""

    job: Job
    submission: Submission
    columns: dict[str, Any]
    """Of its row beside the job's own, of its event and of the audit: they name the request, which only its own task
    knows."""


Insertion: TypeAlias = tuple[NewJob, IdempotencyKey | None]
"""A job, and the key that is to be recorded with it, or that its transaction records by itself."""


def new_job(
    *,
    job_id: UUID,
    owner: Identity,
    submission: Submission,
    claim: Claim | None,
    mac: bytes,
    now: datetime,
    context: Context,
) -> NewJob:
    """A job as it is submitted.

    Args:
        job_id: Its id.
        owner: Whose job it is.
        submission: Valid, with defaults.
        claim: On its disk; None when it has none.
        mac: Of the submission.
        now: Time of its submission.
        context: The service's.
    """
    job = _job(job_id, owner, submission, claim, now, context)
    draft = Draft(data=submitted_event(job), version=job.version, occurred_at=now)
    act = current_act()
    columns = {
        **draft_columns(draft),
        "audit_action": act and act.action,
        "audit_key_prefix": act and act.key_prefix,
        "audit_address": act and act.address,
        "request_mac": mac,
        "env_sealed": seal_environment(job_id, submission.env_vars, context),
    }
    return NewJob(job=job, submission=submission, columns=columns)


async def insert_jobs(executor: Executor, insertions: Sequence[Insertion], cipher: Cipher) -> list[Accepted | None]:
    """Write new jobs; None for one whose id, or whose key, is taken."""
    numbers = await _message_ids(executor, insertions)
    rows = [_row(new, key, number, cipher) for (new, key), number in zip(insertions, numbers, strict=True)]
    written = await executor.fetch_all(storage.submissions.SUBMIT, **storage.submissions.submit_columns(rows))
    known: dict[int, int] = {row["turn"]: row["submit_message_id"] for row in written}
    return [
        Accepted(new.job.id, new.job.status, known[turn]) if turn in known else None
        for turn, (new, _) in enumerate(insertions, start=1)
    ]


async def _message_ids(executor: Executor, insertions: Sequence[Insertion]) -> Sequence[int | None]:
    """Message IDs, where they must be known before: an answer names its own, and is sealed with its key.

    With none they are taken as jobs are written, which spares a round trip.
    """
    if all(key is None for _, key in insertions):
        return [None] * len(insertions)
    return [row["id"] for row in await executor.fetch_all(storage.submissions.MESSAGE_IDS, count=len(insertions))]


def group_of_submissions(database: Database, cipher: Cipher) -> GroupCommit[Insertion, Accepted | None]:
    """Writes jobs as `insert_jobs` does, those that come at once together."""

    async def commit(insertions: Sequence[Insertion]) -> list[Accepted | None]:
        return await insert_jobs(database, insertions, cipher)

    return GroupCommit(commit)


def _row(new: NewJob, key: IdempotencyKey | None, number: int | None, cipher: Cipher) -> dict[str, Any]:
    answer = Accepted(new.job.id, new.job.status, number or 0)  # without a key it is not recorded
    return {
        **msgspec.structs.asdict(new.job),
        **new.columns,
        **recorded_columns(key, answer, cipher),
        "submit_message_id": number,
    }


def submitted_event(job: Job) -> JobSubmitted:
    """What gives a waiting job its entry in the queue."""
    return JobSubmitted(
        job_id=job.id,
        user_id=job.user_id,
        username=job.username,
        status=job.status,
        instance_type=job.instance_type,
        gpu_type=job.gpu_type,
        gpu_count=job.gpu_count,
        duration_seconds=job.duration_seconds,
        submitted_at=job.created_at,
        waits_for_disk=job.status is JobStatus.PENDING,
        disk_id=job.disk_id,
        availability_zone=job.availability_zone,
    )


def _job(  # noqa: PLR0917 - private, and each is something else
    job_id: UUID, owner: Identity, submission: Submission, claim: Claim | None, now: datetime, context: Context
) -> Job:
    waits = claim is not None and not claim.ready
    bare = context.settings.tools_image is None
    jupyter = submission.jupyter_enabled and not bare
    return Job(
        id=job_id,
        user_id=owner.user_id,
        username=owner.username,
        name=submission.name,
        image=submission.image,
        command=submission.command,
        working_dir=submission.working_dir,
        instance_type=submission.instance_type,
        gpu_type=submission.gpu_type,
        gpu_count=submission.gpu_count,
        duration_seconds=submission.duration_seconds,
        disk_name=submission.disk_name,
        disk_id=claim.disk_id if claim else None,
        availability_zone=claim.availability_zone if claim else None,
        ebs_volume_id=claim.volume_id if claim else None,
        env_var_names=sorted(submission.env_vars),
        github_user=submission.github_user,
        users=first_users(submission.github_user, bare=bare, now=now),
        jupyter_wanted=jupyter,
        jupyter_enabled=jupyter,
        jupyter_revision=int(jupyter),
        jupyter_token_sealed=new_jupyter_token(job_id, context) if jupyter else None,
        jupyter_requested_at=now if jupyter else None,
        jupyter_error=BARE if submission.jupyter_enabled and bare else None,
        status=JobStatus.PENDING if waits else JobStatus.QUEUED,
        detail="waiting for its disk" if waits else None,
        submit_message_id=0,
        created_at=now,
        updated_at=now,
        traceparent=current_traceparent(),
    )
