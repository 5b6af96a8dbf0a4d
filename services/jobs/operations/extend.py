"""Giving an active job more time."""

from datetime import datetime

from services.jobs import storage
from services.jobs.context import Context
from services.jobs.domain.accepted_answer import Accepted
from services.jobs.domain.extension import SHOWN_AFTER, extension_refusal
from services.jobs.domain.facts import Extend
from services.jobs.domain.transition_table import transition_of
from services.jobs.operations.lock import JobNotActive, lock_own
from services.jobs.operations.transition import write_transition
from shared.database import Transaction
from shared.errors import Conflict
from shared.idempotency import IdempotencyKey, Outcome, idempotent


class ExtensionRefused(Conflict):
    """The text says why, and how much may be asked for."""


async def extend_job(
    *,
    user_id: int,
    job_id: str,
    seconds: int,
    shown_at_once: bool,
    key: IdempotencyKey | None,
    now: datetime,
    context: Context,
) -> Outcome[Accepted]:
    """Give an active job more time; warnings before its end start anew.

    The row is locked, checked and written in one transaction, and its expiry is written under the row's revision:
    exactly one of the two wins. What is accepted has taken effect; that the job shows it later is for clients that read
    the job after the answer and wait for its end to change.

    Args:
        user_id: Its owner.
        job_id: Or a unique beginning of it.
        seconds: More than 0.
        shown_at_once: Else the job shows it three seconds later.
        key: Idempotency key, None without.
        now: Time of the request.
        context: The service's.

    Raises:
        NotFound: No such job, or someone else's.
        JobNotActive: It does not run.
        ExtensionRefused: It would last longer than a job may.
    """

    async def extend(transaction: Transaction) -> Accepted:
        job = await lock_own(transaction, user_id=user_id, job_id=job_id)
        # after the lock was had, which may take a while
        shown_at = None if shown_at_once else await transaction.fetch_value(storage.jobs.CLOCK) + SHOWN_AFTER
        changed = transition_of(job, Extend(seconds, shown_at), now)
        if changed is None:
            raise JobNotActive(job)
        longest_seconds = context.settings.max_total_hours * 3600
        refusal = extension_refusal(job, seconds=seconds, longest_seconds=longest_seconds, now=now)
        if refusal is not None:
            raise ExtensionRefused(refusal)
        written = await write_transition(
            transaction=transaction, before=job, transition=changed, now=now, context=context
        )
        return Accepted(job.id, written.job.status, written.message_ids[0])

    return await idempotent(context, extend, key=key, answer_type=Accepted, now=now, audit=Accepted.audited)
