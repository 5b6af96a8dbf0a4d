"""Submitting a job: its disk is claimed, its row and the event are written."""

import hmac
from datetime import datetime
from functools import partial
from uuid import UUID

from services.jobs import storage
from services.jobs.context import Context
from services.jobs.domain.accepted_answer import Accepted
from services.jobs.domain.access import BARE, first_users
from services.jobs.domain.job import Job
from services.jobs.domain.submission import Submission
from services.jobs.operations.claim_disk import claim_disk
from services.jobs.operations.seal import new_jupyter_token, request_mac, seal_environment
from shared.contracts.auth import Identity
from shared.contracts.disks import Claim
from shared.contracts.jobs import JobStatus, JobSubmitted
from shared.database import Executor, Transaction
from shared.errors import Conflict, InvalidInput, Problem
from shared.idempotency import IdempotencyKey, Outcome, find_answer, idempotent
from shared.messaging import Draft
from shared.messaging.outbox import draft_columns


class JobIdTaken(Conflict):
    """The id that the client chose belongs to another job."""

    def __init__(self) -> None:
        super().__init__("A job with this RESERVATION_ID exists already")


class LimitReached(Conflict):
    """The user has, or would have, more than one may."""


async def submit_job(
    *,
    owner: Identity,
    submission: Submission,
    job_id: UUID,
    key: IdempotencyKey | None,
    now: datetime,
    context: Context,
) -> Outcome[Accepted]:
    """Put a job in the queue.

    Args:
        owner: Whose job it is.
        submission: Valid, with defaults.
        job_id: Used unless the submission asks for an id of its own.
        key: Idempotency key, None without.
        now: Its time of submission.
        context: The service's.

    Raises:
        JobIdTaken: The id it asks for belongs to another request.
        Conflict: Its disk is in use.
        LimitReached: Too many of the user's jobs wait, or it wants more GPUs than one may hold.
        InvalidInput: It is longer than a job may last, or its disk exists with another size.
        Unavailable: The database, or the disks service for a job with a disk.
    """
    mac = request_mac(submission.canonical(), context)
    if key is not None:
        # before the claim: the disk is in use by the very job that a repetition asks for
        answer = await find_answer(context.database, key=key, answer_type=Accepted, cipher=context.cipher, now=now)
        if answer is not None:
            return Outcome(answer, replayed=True)
    if submission.requested_id is not None:
        job_id = submission.requested_id
        earlier = await _find_earlier(job_id, owner, mac, context)
        if earlier is not None:
            return await _answer_retry(earlier, key, now, context)
    _check_size(submission, context)
    claim = await claim_disk(job_id, owner, submission, context)
    job = _new_job(job_id, owner, submission, claim, now, context)
    try:
        return await _insert(job, submission, mac, key, context)
    except JobIdTaken:
        # the same request twice at once: the other one won
        earlier = await _find_earlier(job_id, owner, mac, context)
        if earlier is None:
            raise
        return await _answer_retry(earlier, key, now, context)
    finally:
        context.outbox.wake()


async def _find_earlier(job_id: UUID, owner: Identity, mac: bytes, context: Context) -> Accepted | None:
    row = await context.database.fetch_one(storage.jobs.FIND_SUBMITTED, job_id=job_id)
    if row is None:
        return None
    if row["user_id"] != owner.user_id or not hmac.compare_digest(row["request_mac"], mac):
        raise JobIdTaken
    return Accepted(job_id, JobStatus(row["status"]), row["submit_message_id"])


async def _answer_retry(
    earlier: Accepted, key: IdempotencyKey | None, now: datetime, context: Context
) -> Outcome[Accepted]:
    """The earlier job is the answer, and an idempotency key of the retry is used up for it."""
    if key is None:
        return Outcome(earlier, replayed=True)

    async def answer(_: Transaction) -> Accepted:
        return earlier

    outcome = await idempotent(context, answer, key=key, answer_type=Accepted, now=now)
    return Outcome(outcome.answer, replayed=True)


def _new_job(  # noqa: PLR0917 - private, and each is something else
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
    )


def _check_size(submission: Submission, context: Context) -> None:
    longest_hours = context.settings.max_total_hours
    if submission.duration_seconds > longest_hours * 3600:
        text = f"Must be at most {longest_hours} hours, the longest that a job may last here"
        raise InvalidInput([Problem("less_than_equal", ("body", "duration_hours"), text)])
    most = context.settings.max_gpus_per_user
    if most is not None and submission.gpu_count > most:
        raise LimitReached(f"You may hold at most {most} GPUs at once, so this job could never start")


async def _insert(
    job: Job, submission: Submission, mac: bytes, key: IdempotencyKey | None, context: Context
) -> Outcome[Accepted]:
    insert = partial(_insert_job, job=job, submission=submission, mac=mac, context=context)
    most = context.settings.max_waiting_jobs_per_user
    if key is None and most is None:
        # one statement is a transaction of its own, at a quarter of the round trips
        return Outcome(await insert(context.database))

    async def insert_within_limit(transaction: Transaction) -> Accepted:
        if most is not None:
            await _check_waiting(transaction, job.user_id, most)
        return await insert(transaction)

    return await idempotent(context, insert_within_limit, key=key, answer_type=Accepted, now=job.created_at)


async def _check_waiting(transaction: Transaction, user_id: int, most: int) -> None:
    await transaction.fetch_value(storage.queue.LOCK_WAITING, user_id=user_id)
    waiting = await transaction.fetch_value(storage.queue.COUNT_WAITING, user_id=user_id)
    if waiting >= most:
        raise LimitReached(f"{waiting} of your jobs wait already, and at most {most} may: cancel one, or try later")


async def _insert_job(
    executor: Executor, *, job: Job, submission: Submission, mac: bytes, context: Context
) -> Accepted:
    draft = Draft(data=submitted_event(job), version=job.version, occurred_at=job.created_at)
    message_id = await executor.fetch_value(
        storage.jobs.SUBMIT,
        **storage.jobs.submit_columns(job),
        **draft_columns(draft),
        request_mac=mac,
        env_sealed=seal_environment(job.id, submission.env_vars, context),
        due_at=job.created_at,
    )
    if message_id is None:
        raise JobIdTaken
    return Accepted(job.id, job.status, message_id)


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
