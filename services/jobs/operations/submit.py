"""Submitting a job: its disk is claimed, its row and the event are written."""

import hmac
from datetime import datetime
from typing import cast
from uuid import UUID

from services.jobs import storage
from services.jobs.context import Context
from services.jobs.domain.accepted_answer import Accepted
from services.jobs.domain.job_id import MIN_PREFIX_LENGTH, id_range
from services.jobs.domain.submission import Submission
from services.jobs.operations.claim_disk import claim_disk
from services.jobs.operations.insert_jobs import NewJob, insert_jobs, new_job
from services.jobs.operations.seal import request_mac
from shared.contracts.auth import Identity
from shared.contracts.jobs import JobStatus
from shared.database import Transaction
from shared.errors import Conflict, InvalidInput, Problem
from shared.idempotency import IdempotencyKey, Outcome, find_answer, idempotent


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
    refusal = size_refusal(submission, context)
    if key is not None and (refusal or submission.requested_id or submission.disk_name):
        # before the claim: the disk is in use by the very job that a repetition asks for
        answer = await find_answer(context.database, key=key, answer_type=Accepted, cipher=context.cipher, now=now)
        if answer is not None:
            return Outcome(answer, replayed=True)
    if submission.requested_id is not None:
        job_id = submission.requested_id
        earlier = await find_earlier(job_id, owner, mac, context)
        if earlier is not None:
            return await _answer_retry(earlier, key, now, context)
    if refusal is not None:
        raise refusal
    claim = await claim_disk(job_id, owner, submission, context)
    new = new_job(job_id=job_id, owner=owner, submission=submission, claim=claim, mac=mac, now=now, context=context)
    try:
        return await _insert(new, key, context)
    except JobIdTaken:
        # the same request twice at once: the other one won
        earlier = await find_earlier(job_id, owner, mac, context)
        if earlier is None:
            raise
        return await _answer_retry(earlier, key, now, context)
    finally:
        context.outbox.wake()


async def find_earlier(job_id: UUID, owner: Identity, mac: bytes, context: Context) -> Accepted | None:
    """The job of that id if it is the user's and was asked for by an equal request; None when there is none.

    Raises:
        JobIdTaken: It is another's, or was asked for by another request.
    """
    row = await context.database.fetch_one(storage.jobs.FIND_SUBMITTED, job_id=job_id)
    if row is None:
        await _require_free_host(job_id, context)
        return None
    if row["user_id"] != owner.user_id or not hmac.compare_digest(row["request_mac"], mac):
        raise JobIdTaken
    return Accepted(job_id, JobStatus(row["status"]), row["submit_message_id"])


async def _require_free_host(job_id: UUID, context: Context) -> None:
    """Whoever chose their id by another's job would share its host, and with it what browsers keep for that.

    Raises:
        JobIdTaken: A job that has not ended has the same short id.
    """
    if context.settings.job_domain is None:
        return
    first, last = cast("tuple[UUID, UUID]", id_range(str(job_id)[:MIN_PREFIX_LENGTH]))
    if await context.database.fetch_value(storage.jobs.SHARES_SHORT_ID, first=first, last=last, job_id=job_id):
        raise JobIdTaken


async def _answer_retry(
    earlier: Accepted, key: IdempotencyKey | None, now: datetime, context: Context
) -> Outcome[Accepted]:
    """The earlier job is the answer, and an idempotency key of the retry is used up for it."""
    if key is None:
        return Outcome(earlier, replayed=True)

    async def answer(_: Transaction) -> Accepted:
        return earlier

    outcome = await idempotent(context, answer, key=key, answer_type=Accepted, now=now, audit=None)
    return Outcome(outcome.answer, replayed=True)


def size_refusal(submission: Submission, context: Context) -> InvalidInput | LimitReached | None:
    """Why a job may not be as long or as large as it wants to be; None when it may."""
    longest_hours = context.settings.max_total_hours
    if submission.duration_seconds > longest_hours * 3600:
        text = f"Must be at most {longest_hours} hours, the longest that a job may last here"
        return InvalidInput([Problem("less_than_equal", ("body", "duration_hours"), text)])
    most = context.settings.max_gpus_per_user
    if most is not None and submission.gpu_count > most:
        gpus = "GPU" if most == 1 else "GPUs"
        return LimitReached(f"You may hold at most {most} {gpus} at once, so this job could never start")
    return None


async def _insert(new: NewJob, key: IdempotencyKey | None, context: Context) -> Outcome[Accepted]:
    most = context.settings.max_waiting_jobs_per_user
    if most is None and (key is None or new.submission.requested_id is None):
        accepted = await context.submissions.write((new, key))
        if accepted is not None:
            return Outcome(accepted)
        if key is None:
            raise JobIdTaken
    # one transaction for the limit, the key and the job, which tells what is in the way

    async def insert_within_limit(transaction: Transaction) -> Accepted:
        await check_waiting(transaction, new.job.user_id, 1, context)
        (accepted,) = await insert_jobs(transaction, [(new, None)], context.cipher)
        if accepted is None:
            raise JobIdTaken
        return accepted

    return await idempotent(
        context, insert_within_limit, key=key, answer_type=Accepted, now=new.job.created_at, audit=None
    )


async def check_waiting(transaction: Transaction, user_id: int, count: int, context: Context) -> None:
    """Whether so many further jobs of the user may wait; holds until the transaction ends.

    Raises:
        LimitReached: They may not.
    """
    most = context.settings.max_waiting_jobs_per_user
    if most is None:
        return
    await transaction.fetch_value(storage.queue.LOCK_WAITING, user_id=user_id)
    waiting = await transaction.fetch_value(storage.queue.COUNT_WAITING, user_id=user_id)
    if waiting + count > most:
        raise LimitReached(f"{waiting} of your jobs wait already, and at most {most} may: cancel one, or try later")
