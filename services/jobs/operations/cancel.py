"""Cancelling jobs: by their users, by operators, and because their user was disabled."""

from datetime import datetime, timedelta

import structlog

from services.jobs import storage
from services.jobs.context import Context
from services.jobs.domain.accepted_answer import Accepted
from services.jobs.domain.facts import Cancel
from services.jobs.domain.job import ENDED_STATUSES, Job
from services.jobs.domain.transition_table import transition_of
from services.jobs.operations.lock import lock_own, lock_own_or_any
from services.jobs.operations.transition import write_transition
from shared.contracts.jobs import JobStatus
from shared.database import Transaction
from shared.errors import Conflict
from shared.idempotency import IdempotencyKey, Outcome, idempotent

log = structlog.get_logger(__name__)

REASON = "Cancelled because its user was disabled"


class JobHasEnded(Conflict):
    def __init__(self, status: JobStatus) -> None:
        super().__init__(f"The job has already ended: it is {status}")


async def cancel_job(
    *,
    user_id: int,
    job_id: str,
    key: IdempotencyKey | None,
    now: datetime,
    context: Context,
    is_operator: bool = False,
    reason: str | None = None,
) -> Outcome[Accepted]:
    """Ask for the end of a job; one without a pod ends at once. Asked again, the first answer is given again.

    Args:
        user_id: Who asks.
        job_id: Or a unique beginning of it; the whole id of another's.
        key: Idempotency key, None without.
        now: Time of the request.
        context: The service's.
        is_operator: Who asks may cancel anybody's.
        reason: Told to its owner; None: nothing was said.

    Raises:
        NotFound: No such job, or someone else's.
        JobHasEnded: It ended by itself.
    """

    async def cancel(transaction: Transaction) -> Accepted:
        lock = lock_own_or_any if is_operator else lock_own
        job = await lock(transaction, user_id=user_id, job_id=job_id)
        if job.cancel_message_id is None:
            who = "its user" if job.user_id == user_id else "an operator"
            text = f"Cancelled by {who}" + (f": {reason}" if reason else "")
            job = await _write_cancel(transaction, job, Cancel(text), now, context)
        assert job.cancel_message_id is not None  # noqa: S101 - the transition has this event
        return Accepted(job.id, job.status, job.cancel_message_id)

    return await idempotent(context, cancel, key=key, answer_type=Accepted, now=now, audit=Accepted.audited)


async def _write_cancel(transaction: Transaction, job: Job, fact: Cancel, now: datetime, context: Context) -> Job:
    changed = transition_of(job, fact, now)
    if changed is None or job.status in ENDED_STATUSES:
        raise JobHasEnded(job.status)
    written = await write_transition(transaction=transaction, before=job, transition=changed, now=now, context=context)
    return written.job


async def note_disabled(
    *, transaction: Transaction, user_id: int, disabled_at: datetime | None, sequence: int, context: Context
) -> None:
    """Write down that a user was disabled, or, with None, enabled again.

    Args:
        transaction: The consumer's.
        user_id: Auth's.
        disabled_at: When; the grace counts from then.
        sequence: Auth's number of the change; what is older than what is known changes nothing.
        context: The service's.
    """
    grace = timedelta(seconds=context.settings.disabled_user_grace_seconds)
    jobs_end_at = None if disabled_at is None else disabled_at + grace
    await transaction.execute(
        storage.disabled_users.NOTE_DISABLED, user_id=user_id, sequence=sequence, jobs_end_at=jobs_end_at
    )


async def cancel_jobs_of_disabled(*, limit: int, now: datetime, context: Context) -> int:
    """Cancel jobs of users who are disabled and whose grace is over, at most `limit`; how many were found."""
    async with context.database.transaction() as transaction:
        rows = await transaction.fetch_all(storage.disabled_users.LOCK_JOBS_OF_DISABLED, now=now, limit=limit)
        for row in rows:
            job = storage.jobs.to_job(row)
            changed = transition_of(job, Cancel(REASON), now)
            if changed is not None:
                log.info("job_of_disabled_user_cancelled", job_id=str(job.id), user_id=job.user_id)
                await write_transition(
                    transaction=transaction, before=job, transition=changed, now=now, context=context
                )
    return len(rows)
