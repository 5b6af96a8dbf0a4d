"""The verbs of the jobs service: one transaction each, state and events together."""

import hmac
import secrets
from collections.abc import Awaitable, Callable
from datetime import datetime
from functools import partial
from uuid import UUID

import msgspec
from msgspec.structs import replace
from tenacity import retry, retry_if_exception_type, stop_after_delay, wait_fixed

from services.jobs import storage
from services.jobs.domain.access import BARE, find_user, first_users
from services.jobs.domain.change import Change
from services.jobs.domain.facts import Cancel, Fact, Granted
from services.jobs.domain.job import ENDED_STATUSES, Job, Phase
from services.jobs.domain.job_id import id_range
from services.jobs.domain.submission import Submission
from services.jobs.domain.table import change
from services.jobs.queries import JobNotFound, known_range, one_of
from services.jobs.resources import Resources
from shared.contracts.auth import Identity
from shared.contracts.disks import CLAIM_SUBJECT, Claim, ClaimRefusal, ClaimReply, ClaimRequest
from shared.contracts.jobs import (
    JobCancelRequested,
    JobEvent,
    JobJupyterRequested,
    JobStatus,
    JobSubmitted,
    JobUserRequested,
)
from shared.database import Executor, Transaction
from shared.errors import Conflict, GpuDevError, InvalidInput, Problem, Unavailable
from shared.idempotency import IdempotencyKey, Outcome, find_answer, once
from shared.messaging import Draft, call_rpc, record_event
from shared.messaging.outbox import draft_columns

_CLAIM_SECONDS = 5.0
_CLAIM_PATIENCE_SECONDS = 2.0
_CLAIM_PAUSE_SECONDS = 0.1


class Accepted(msgspec.Struct, frozen=True):
    """A request that was taken."""

    job_id: UUID
    status: JobStatus
    message_id: int
    """By which users can follow it: the same number is in its event."""


class Written(msgspec.Struct, frozen=True):
    """A change that was written."""

    job: Job
    message_ids: tuple[int, ...]
    """Of its events, in their order."""


class JobIdTaken(Conflict):
    """The id that the client chose belongs to another job."""

    def __init__(self) -> None:
        super().__init__("A job with this RESERVATION_ID exists already")


class JobHasEnded(Conflict):
    def __init__(self, status: JobStatus) -> None:
        super().__init__(f"The job has already ended: it is {status}")


class LimitReached(Conflict):
    """The user has, or would have, more than one may."""


class StaleJob(Unavailable):
    """The job changed between the decision and its write; whoever decided looks again."""

    def __init__(self) -> None:
        super().__init__("The job is changing, try again", retry_after_seconds=1)


class LeaseTooEarly(Unavailable):
    """A lease came while an older one is still being given back; it is taken in when that is done."""

    def __init__(self) -> None:
        super().__init__("An older lease of the job is still being given back", retry_after_seconds=1)


async def submit_job(
    *,
    owner: Identity,
    submission: Submission,
    job_id: UUID,
    key: IdempotencyKey | None,
    now: datetime,
    resources: Resources,
) -> Outcome[Accepted]:
    """Put a job in line.

    Args:
        owner: Whose job it is.
        submission: Valid, with defaults.
        job_id: Used unless the submission asks for an id of its own.
        key: Idempotency key, None without.
        now: Its time of submission.
        resources: The service's.

    Raises:
        JobIdTaken: The id it asks for belongs to another request.
        Conflict: Its disk is in use.
        LimitReached: Too many of the user's jobs wait, or it wants more GPUs than one may hold.
        InvalidInput: It is longer than a job may last, or its disk exists with another size.
        Unavailable: The database, or the disks service for a job with a disk.
    """
    mac = resources.request_mac(submission.canonical())
    if key is not None:
        # before the claim: the disk is in use by the very job that a repetition asks for
        told = await find_answer(
            resources.database, key=key, answer_type=Accepted, cipher=resources.cipher, now=now
        )  # fmt: skip
        if told is not None:
            return Outcome(told, replayed=True)
    if submission.requested_id is not None:
        job_id = submission.requested_id
        earlier = await _find_earlier(job_id, owner, mac, resources)
        if earlier is not None:
            return await _answer_retry(earlier, key, now, resources)
    _check_size(submission, resources)
    claim = await _claim_disk(job_id, owner, submission, resources)
    job = _new_job(job_id, owner, submission, claim, now, resources)
    insert = partial(_insert_job, job=job, submission=submission, mac=mac, resources=resources)
    try:
        if (
            key is None and resources.settings.max_waiting_jobs_per_user is None
        ):  # one statement is a transaction of its own, at a quarter of the round trips
            return Outcome(await insert(resources.database))
        async with resources.database.transaction() as transaction:
            effect = partial(_insert_within_limit, transaction, insert, owner.user_id, resources)
            if key is None:
                return Outcome(await effect())
            return await once(
                transaction, effect, key=key, answer_type=Accepted, cipher=resources.cipher, now=now,
            )  # fmt: skip
    except JobIdTaken:
        # the same request twice at once: the other one won
        earlier = await _find_earlier(job_id, owner, mac, resources)
        if earlier is None:
            raise
        return await _answer_retry(earlier, key, now, resources)
    finally:
        resources.relay.wake()


async def cancel_job(
    *,
    user_id: int,
    job_id: str,
    key: IdempotencyKey | None,
    now: datetime,
    resources: Resources,
    is_operator: bool = False,
    reason: str | None = None,
) -> Outcome[Accepted]:
    """Ask for the end of a job; one without a pod ends at once. Asked again, the first answer is given again.

    Args:
        user_id: Who asks.
        job_id: Or a unique beginning of it; the whole id of another's.
        key: Idempotency key, None without.
        now: Time of the request.
        resources: The service's.
        is_operator: Who asks may cancel anybody's.
        reason: Told to its owner; None: nothing was said.

    Raises:
        NotFound: No such job, or someone else's.
        JobHasEnded: It ended by itself.
    """
    async with resources.database.transaction() as transaction:
        effect = partial(_cancel, transaction, user_id, job_id, now, resources, is_operator, reason)
        return await once(transaction, effect, key=key, answer_type=Accepted, cipher=resources.cipher, now=now)


async def take_in_news(
    *,
    transaction: Transaction,
    job_id: UUID,
    fact: Fact,
    sequence: int | None,
    now: datetime,
    resources: Resources,
) -> None:
    """Let a fact that another service told take effect.

    Args:
        transaction: The consumer's.
        job_id: May be unknown here; then nothing is done.
        fact: What happened.
        sequence: Capacity's number of this change of the job, None when capacity does not tell it. What is older
            than what was taken in is dropped.
        now: Time of taking in.
        resources: The service's.

    Raises:
        LeaseTooEarly: Deliver it again later.
    """
    row = await transaction.fetch_one(storage.LOCK, job_id=job_id)
    if row is None:
        return
    job = storage.to_job(row)
    if job.phase is Phase.ENDED or (sequence is not None and sequence <= job.capacity_sequence):
        return
    if isinstance(fact, Granted) and fact.epoch > job.epoch and job.phase in _NOT_FREE_FOR_A_LEASE:
        raise LeaseTooEarly
    changed = change(job, fact, now) or Change(replace(job, revision=job.revision + 1))
    noted = replace(changed.job, capacity_sequence=sequence or job.capacity_sequence)
    await write_change(
        transaction=transaction, before=job, changed=Change(noted, changed.events), now=now, resources=resources
    )


_NOT_FREE_FOR_A_LEASE = frozenset({Phase.PENDING, Phase.PREPARING, Phase.GIVING_BACK})


async def apply_fact(*, job: Job, fact: Fact, now: datetime, resources: Resources) -> Job | None:
    """Let what the reconciler saw take effect, unless the job has changed since `job` was read.

    Returns:
        The changed job; None when the fact is stale or changes nothing.
    """
    changed = change(job, fact, now)
    if changed is None:
        return None
    try:
        async with resources.database.transaction() as transaction:
            written = await write_change(
                transaction=transaction, before=job, changed=changed, now=now, resources=resources
            )
    except StaleJob:
        return None
    return written.job


async def apply_to_newest(*, job: Job, fact: Fact, now: datetime, resources: Resources) -> Job:
    """Let a fact take effect on the job as it is now, for facts that say themselves what they answer.

    Returns:
        The job as it is then, changed or not.
    """
    async with resources.database.transaction() as transaction:
        row = await transaction.fetch_one(storage.LOCK, job_id=job.id)
        newest = storage.to_job(row) if row is not None else job
        changed = change(newest, fact, now)
        if changed is None:
            return newest
        written = await write_change(
            transaction=transaction, before=newest, changed=changed, now=now, resources=resources
        )  # fmt: skip
        return written.job


async def write_change(
    *, transaction: Transaction, before: Job, changed: Change, now: datetime, resources: Resources
) -> Written:
    """Write a change with its events; who waits for the job is woken at commit.

    Raises:
        StaleJob: The row is not what `before` was; the transaction must not be committed.
    """
    job, message_ids = changed.job, []
    for number, event in enumerate(changed.events, start=1):
        draft = Draft(data=event, version=before.version + number, occurred_at=now)
        message_ids.append(await record_event(transaction, draft, resources.relay))
        job = _with_message_id(job, event, message_ids[-1])
    saved = await transaction.fetch_value(
        storage.SAVE, **storage.save_columns(job),
        job_id=before.id, old_revision=before.revision, old_status=before.status, due_at=now,
    )  # fmt: skip
    if not saved:
        raise StaleJob
    if job.node is not None:
        transaction.after_commit(partial(resources.hints.add, job.id))
    transaction.after_commit(partial(resources.changes.tell, job.id))
    return Written(job, tuple(message_ids))


def _with_message_id(job: Job, event: JobEvent, message_id: int) -> Job:
    """The job with the number of a request, by which its repetition is answered."""
    if isinstance(event, JobCancelRequested):
        return replace(job, cancel_message_id=message_id)
    if isinstance(event, JobJupyterRequested):
        return replace(job, jupyter_message_id=message_id)
    if isinstance(event, JobUserRequested):
        asked = find_user(job, event.github_username)
        return replace(
            job, users=[replace(user, message_id=message_id) if user is asked else user for user in job.users]
        )
    return job


async def lock_own(transaction: Transaction, *, user_id: int, job_id: str) -> Job:
    """One's own job, by its id or a beginning of it, held until the transaction ends; raises as `get_job`."""
    first_id, last_id = known_range(job_id)
    return one_of(await transaction.fetch_all(storage.LOCK_OWN, user_id=user_id, first_id=first_id, last_id=last_id))


async def lock_own_or_any(transaction: Transaction, *, user_id: int, job_id: str) -> Job:
    """As `lock_own` for one's own job, and anybody's job of this whole id: for operators."""
    try:
        return await lock_own(transaction, user_id=user_id, job_id=job_id)
    except JobNotFound:
        return await lock_any(transaction, job_id=job_id)


async def lock_any(transaction: Transaction, *, job_id: str) -> Job:
    """Anybody's job of this whole id, held until the transaction ends.

    Raises:
        JobNotFound: There is none.
    """
    found = id_range(job_id)
    whole_id = found[0] if found is not None and found[0] == found[1] else None
    row = await transaction.fetch_one(storage.LOCK, job_id=whole_id) if whole_id is not None else None
    if row is None:
        raise JobNotFound
    return storage.to_job(row)


async def _find_earlier(job_id: UUID, owner: Identity, mac: bytes, resources: Resources) -> Accepted | None:
    row = await resources.database.fetch_one(storage.FIND_SUBMITTED, job_id=job_id)
    if row is None:
        return None
    if row["user_id"] != owner.user_id or not hmac.compare_digest(row["request_mac"], mac):
        raise JobIdTaken
    return Accepted(job_id, JobStatus(row["status"]), row["submit_message_id"])


async def _answer_retry(
    earlier: Accepted, key: IdempotencyKey | None, now: datetime, resources: Resources
) -> Outcome[Accepted]:
    """The earlier job is the answer, and an idempotency key of the retry is used up for it."""
    if key is None:
        return Outcome(earlier, replayed=True)

    async def effect() -> Accepted:
        return earlier

    async with resources.database.transaction() as transaction:
        outcome = await once(
            transaction, effect, key=key, answer_type=Accepted, cipher=resources.cipher, now=now
        )  # fmt: skip
    return Outcome(outcome.answer, replayed=True)


async def _claim_disk(
    job_id: UUID, owner: Identity, submission: Submission, resources: Resources
) -> Claim | None:  # fmt: skip
    if submission.disk_name is None:
        return None
    request = ClaimRequest(
        job_id=job_id, user_id=owner.user_id, username=owner.username, disk_name=submission.disk_name,
        size_gb=submission.disk_size_gb,
    )  # fmt: skip
    # asked again through a restart of the disks service or a reconnect: the same job's claim has the same answer
    ask = retry(
        retry=retry_if_exception_type(Unavailable), stop=stop_after_delay(_CLAIM_PATIENCE_SECONDS),
        wait=wait_fixed(_CLAIM_PAUSE_SECONDS), reraise=True,
    )(call_rpc)  # fmt: skip
    reply = await ask(resources.broker, CLAIM_SUBJECT, request, ClaimReply, timeout_seconds=_CLAIM_SECONDS)
    if reply.claim is None:
        raise _refusal(reply.refusal)
    return reply.claim


def _refusal(refusal: ClaimRefusal | None) -> GpuDevError:
    if refusal is None or refusal.kind == "unavailable":
        return Unavailable(refusal.text if refusal else "The disks service cannot answer now", retry_after_seconds=5)
    if refusal.kind == "invalid":
        return InvalidInput([Problem("value_error", ("body", "disk_size_gb"), refusal.text)])
    return Conflict(refusal.text)


def _new_job(  # noqa: PLR0917 - private, and each is something else
    job_id: UUID, owner: Identity, submission: Submission, claim: Claim | None, now: datetime, resources: Resources
) -> Job:
    waits = claim is not None and not claim.ready
    bare = resources.settings.tools_image is None
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
        jupyter_token_sealed=new_jupyter_token(job_id, resources) if jupyter else None,
        jupyter_requested_at=now if jupyter else None,
        jupyter_error=BARE if submission.jupyter_enabled and bare else None,
        status=JobStatus.PENDING if waits else JobStatus.QUEUED,
        detail="waiting for its disk" if waits else None,
        submit_message_id=0,
        created_at=now,
        updated_at=now,
    )


def _check_size(submission: Submission, resources: Resources) -> None:
    longest_hours = resources.settings.max_total_hours
    if submission.duration_seconds > longest_hours * 3600:
        text = f"Must be at most {longest_hours} hours, which is as long as a job may last here"
        raise InvalidInput([Problem("less_than_equal", ("body", "duration_hours"), text)])
    most = resources.settings.max_gpus_per_user
    if most is not None and submission.gpu_count > most:
        raise LimitReached(f"You may hold {most} GPUs at once: the job would wait for ever")


async def _insert_within_limit(
    transaction: Transaction, insert: Callable[[Executor], Awaitable[Accepted]], user_id: int, resources: Resources
) -> Accepted:
    most = resources.settings.max_waiting_jobs_per_user
    if most is not None:
        await transaction.fetch_value(storage.LOCK_WAITING, user_id=user_id)
        waiting = await transaction.fetch_value(storage.COUNT_WAITING, user_id=user_id)
        if waiting >= most:
            raise LimitReached(f"{waiting} of your jobs wait already, which is as many as may: cancel one or try later")
    return await insert(transaction)


async def _insert_job(
    executor: Executor, *, job: Job, submission: Submission, mac: bytes, resources: Resources
) -> Accepted:
    draft = Draft(data=submitted_event(job), version=job.version, occurred_at=job.created_at)
    message_id = await executor.fetch_value(
        storage.SUBMIT, **storage.submit_columns(job), **draft_columns(draft), request_mac=mac,
        env_sealed=seal_environment(job.id, submission.env_vars, resources), due_at=job.created_at,
    )  # fmt: skip
    if message_id is None:
        raise JobIdTaken
    return Accepted(job.id, job.status, message_id)


def submitted_event(job: Job) -> JobSubmitted:
    """What gives a waiting job its place in the queue."""
    return JobSubmitted(
        job_id=job.id, user_id=job.user_id, username=job.username, status=job.status,
        instance_type=job.instance_type, gpu_type=job.gpu_type, gpu_count=job.gpu_count,
        duration_seconds=job.duration_seconds, submitted_at=job.created_at,
        waits_for_disk=job.status is JobStatus.PENDING, disk_id=job.disk_id,
        availability_zone=job.availability_zone,
    )  # fmt: skip


def seal_environment(job_id: UUID, environment: dict[str, str], resources: Resources) -> bytes | None:
    """The values as they may be stored; None when there are none."""
    if not environment:
        return None
    return resources.cipher.encrypt(msgspec.json.encode(environment), row=f"jobs.env_sealed:{job_id}")


def unseal_environment(job_id: UUID, sealed: bytes, resources: Resources) -> dict[str, str]:
    """The values of the job's environment.

    Raises:
        UndecryptableError: They are not this job's, or no key fits.
    """
    clear = resources.cipher.decrypt(sealed, row=f"jobs.env_sealed:{job_id}")
    return msgspec.json.decode(clear, type=dict[str, str])


def new_jupyter_token(job_id: UUID, resources: Resources) -> bytes:
    """A token of 192 random bits, as it may be stored."""
    return resources.cipher.encrypt(secrets.token_urlsafe(24).encode(), row=f"jobs.jupyter_token_sealed:{job_id}")


def unseal_jupyter_token(job: Job, resources: Resources) -> str:
    """The job's token.

    Raises:
        UndecryptableError: There is none, it is not this job's, or no key fits.
    """
    sealed = job.jupyter_token_sealed or b""
    return resources.cipher.decrypt(sealed, row=f"jobs.jupyter_token_sealed:{job.id}").decode()


async def _cancel(  # noqa: PLR0917 - private, and each is something else
    transaction: Transaction,
    user_id: int,
    job_id: str,
    now: datetime,
    resources: Resources,
    is_operator: bool,
    reason: str | None,
) -> Accepted:
    lock = lock_own_or_any if is_operator else lock_own
    job = await lock(transaction, user_id=user_id, job_id=job_id)
    if job.cancel_message_id is None:
        who = "its user" if job.user_id == user_id else "an operator"
        changed = change(job, Cancel(f"Cancelled by {who}" + (f": {reason}" if reason else "")), now)
        if changed is None or job.status in ENDED_STATUSES:
            raise JobHasEnded(job.status)
        written = await write_change(transaction=transaction, before=job, changed=changed, now=now, resources=resources)
        job = written.job
    assert job.cancel_message_id is not None  # noqa: S101 - the change has this event
    return Accepted(job.id, job.status, job.cancel_message_id)
