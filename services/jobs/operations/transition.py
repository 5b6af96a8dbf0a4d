"""The one place where a job's transition is written: its row, its history and its events, in one transaction."""

from collections.abc import Sequence
from datetime import datetime
from functools import partial
from uuid import UUID

import msgspec
from msgspec.structs import replace

from services.jobs import storage
from services.jobs.context import Context
from services.jobs.domain.access import find_user
from services.jobs.domain.facts import Fact, Granted, QueueMoved
from services.jobs.domain.job import Job, Phase
from services.jobs.domain.transition import Transition
from services.jobs.domain.transition_table import transition_of
from shared.contracts.jobs import JobCancelRequested, JobEvent, JobJupyterRequested, JobUserRequested
from shared.database import Transaction
from shared.errors import Unavailable
from shared.messaging import Draft, record_event


class Written(msgspec.Struct, frozen=True):
    """A transition that was written."""

    job: Job
    message_ids: tuple[int, ...]
    """Of its events, in their order."""


class QueueMove(msgspec.Struct, frozen=True):
    """What capacity says of a job in the queue."""

    job_id: UUID
    fact: QueueMoved
    sequence: int
    """Capacity's number of its event about the job."""


class StaleJob(Unavailable):
    """The job changed between the decision and its write; whoever decided looks again."""

    def __init__(self) -> None:
        super().__init__("The job is changing, try again", retry_after_seconds=1)


class LeaseTooEarly(Unavailable):
    """A lease came while an older one is still being given back; it is applied when that is done."""

    def __init__(self) -> None:
        super().__init__("An older lease of the job is still being given back", retry_after_seconds=1)


async def apply_event(
    *,
    transaction: Transaction,
    job_id: UUID,
    fact: Fact,
    sequence: int | None,
    now: datetime,
    context: Context,
) -> None:
    """Apply what an event of another service says of a job.

    Args:
        transaction: The consumer's.
        job_id: May be unknown here; then nothing is done.
        fact: What happened.
        sequence: Capacity's number of its event about the job; None for events of others. What is older
            than what was applied is dropped.
        now: The time.
        context: The service's.

    Raises:
        LeaseTooEarly: Deliver it again later.
    """
    row = await transaction.fetch_one(storage.jobs.LOCK, job_id=job_id)
    if row is None:
        return
    job = storage.jobs.to_job(row)
    if job.phase is Phase.ENDED or (sequence is not None and sequence <= job.capacity_sequence):
        return
    if isinstance(fact, Granted) and fact.epoch > job.epoch and job.phase in _NOT_FREE_FOR_A_LEASE:
        raise LeaseTooEarly
    changed = _noted(job, fact, sequence, now)
    await write_transition(transaction=transaction, before=job, transition=changed, now=now, context=context)


async def apply_queue_moves(
    *, transaction: Transaction, moves: Sequence[QueueMove], now: datetime, context: Context
) -> None:
    """Apply what capacity says of jobs in the queue: two statements for any number of them.

    Args:
        transaction: The consumer's.
        moves: In the order in which they were told; what is older than what was applied is dropped.
        now: The time.
        context: The service's.
    """
    rows = await transaction.fetch_all(storage.jobs.LOCK_ALL, ids=list({move.job_id for move in moves}))
    before = {job.id: job for job in map(storage.jobs.to_job, rows)}
    after = dict(before)
    for move in moves:
        job = after.get(move.job_id)
        if job is not None and job.phase is not Phase.ENDED and move.sequence > job.capacity_sequence:
            after[job.id] = _noted(job, move.fact, move.sequence, now).job
    changed = [replace(job, revision=before[job.id].revision + 1) for job in after.values() if job != before[job.id]]
    if changed:
        await transaction.execute(storage.jobs.SAVE_MOVES, **storage.jobs.moved_columns(changed))
    for job in changed:
        transaction.after_commit(partial(context.wake_ups.wake, job.id))


def _noted(job: Job, fact: Fact, sequence: int | None, now: datetime) -> Transition:
    """What a fact makes of a job; that it was told is kept also when it changes nothing."""
    changed = transition_of(job, fact, now) or Transition(replace(job, revision=job.revision + 1))
    return Transition(replace(changed.job, capacity_sequence=sequence or job.capacity_sequence), changed.events)


_NOT_FREE_FOR_A_LEASE = frozenset({Phase.PENDING, Phase.PREPARING, Phase.GIVING_BACK})


async def apply_fact(*, job: Job, fact: Fact, now: datetime, context: Context) -> Job | None:
    """Let what the reconciler saw take effect, unless the job has changed since `job` was read.

    Nothing asks for a look at the job: it is under way, and goes on with what was written.

    Returns:
        The changed job; None when the fact is stale or changes nothing.
    """
    changed = transition_of(job, fact, now)
    if changed is None:
        return None
    try:
        async with context.database.transaction() as transaction:
            written = await write_transition(
                transaction=transaction, before=job, transition=changed, now=now, context=context, is_looked_at=True
            )
    except StaleJob:
        return None
    return written.job


async def apply_to_newest(*, job: Job, fact: Fact, now: datetime, context: Context) -> Job:
    """Let a fact take effect on the job as it is now, for facts that say themselves what they answer.

    Returns:
        The job as it is then, changed or not.
    """
    async with context.database.transaction() as transaction:
        row = await transaction.fetch_one(storage.jobs.LOCK, job_id=job.id)
        newest = storage.jobs.to_job(row) if row is not None else job
        changed = transition_of(newest, fact, now)
        if changed is None:
            return newest
        written = await write_transition(
            transaction=transaction, before=newest, transition=changed, now=now, context=context
        )
        return written.job


async def write_transition(
    *,
    transaction: Transaction,
    before: Job,
    transition: Transition,
    now: datetime,
    context: Context,
    is_looked_at: bool = False,
) -> Written:
    """Write a transition with its events; who waits for the job is woken at commit.

    Args:
        transaction: The caller's.
        before: As it was read.
        transition: What is to be.
        now: The time.
        context: The service's.
        is_looked_at: Whether the reconciler writes it in a pass over the job; else it is asked to look at it.

    Raises:
        StaleJob: The row is not what `before` was; the transaction must not be committed.
    """
    job, message_ids = transition.job, []
    for number, event in enumerate(transition.events, start=1):
        draft = Draft(data=event, version=before.version + number, occurred_at=now)
        message_ids.append(await record_event(transaction, draft, context.outbox))
        job = _with_message_id(job, event, message_ids[-1])
    saving = storage.jobs.saving(before, job, now)
    if not await transaction.fetch_value(saving.statement, **saving.parameters):
        raise StaleJob
    if job.node is not None and not is_looked_at:
        transaction.after_commit(partial(context.hints.add, job.id))
    if storage.jobs.makes_access_due(before, job):
        transaction.after_commit(context.hints.access_due)
    transaction.after_commit(partial(context.wake_ups.wake, job.id))
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
