"""Setting a job's priority, for operators."""

from datetime import datetime

from msgspec.structs import replace

from services.jobs.context import Context
from services.jobs.domain.accepted_answer import Accepted
from services.jobs.domain.job import Job, Phase
from services.jobs.domain.transition import Transition, owner_of
from services.jobs.operations.lock import lock_any
from services.jobs.operations.transition import write_transition
from shared.contracts.auth import Identity
from shared.contracts.jobs import JobPrioritised
from shared.database import Transaction
from shared.errors import Conflict
from shared.idempotency import IdempotencyKey, Outcome, idempotent
from shared.operators import check_operator

_BEFORE_ITS_START = frozenset({Phase.PENDING, Phase.QUEUED, Phase.PREPARING, Phase.GIVING_BACK})


class JobHasLeftTheQueue(Conflict):
    def __init__(self, job: Job) -> None:
        super().__init__(f"The job is no longer waiting: it is {job.status}")


async def prioritise_job(
    *, asker: Identity, job_id: str, priority: int, key: IdempotencyKey | None, now: datetime, context: Context
) -> Outcome[Accepted]:
    """Set the priority of anybody's job that has not started; capacity orders the queue by it.

    Raises:
        OperatorsOnly: The asker is none; says nothing about the job.
        JobNotFound: There is no job of this whole id.
        JobHasLeftTheQueue: It has started or ended.
    """
    check_operator(asker, "set priorities")

    async def prioritise(transaction: Transaction) -> Accepted:
        job = await lock_any(transaction, job_id=job_id)
        if job.phase not in _BEFORE_ITS_START:
            raise JobHasLeftTheQueue(job)
        event = JobPrioritised(**owner_of(job), priority=priority)
        after = replace(job, priority=priority, version=job.version + 1, revision=job.revision + 1, updated_at=now)
        written = await write_transition(
            transaction=transaction, before=job, transition=Transition(after, (event,)), now=now, context=context
        )
        return Accepted(job.id, written.job.status, written.message_ids[0])

    return await idempotent(context, prioritise, key=key, answer_type=Accepted, now=now, audit=Accepted.audited)
