"""Setting a job's priority, for operators."""

from datetime import datetime
from functools import partial

from msgspec.structs import replace

from services.jobs.context import Context
from services.jobs.domain.accepted import Accepted
from services.jobs.domain.change import Change
from services.jobs.domain.job import Job, Phase
from services.jobs.operations.lock import lock_any
from services.jobs.operations.transition import write_change
from shared.contracts.auth import Identity
from shared.contracts.jobs import JobPrioritised
from shared.database import Transaction
from shared.errors import Conflict, Forbidden
from shared.idempotency import IdempotencyKey, Outcome, once

_BEFORE_ITS_START = frozenset({Phase.PENDING, Phase.QUEUED, Phase.PREPARING, Phase.GIVING_BACK})


class OperatorsOnly(Forbidden):
    def __init__(self) -> None:
        super().__init__("Only operators may set priorities")


class JobHasLeftTheLine(Conflict):
    def __init__(self, job: Job) -> None:
        super().__init__(f"The job does not wait any more: it is {job.status}")


async def prioritise_job(
    *, asker: Identity, job_id: str, priority: int, key: IdempotencyKey | None, now: datetime, context: Context
) -> Outcome[Accepted]:
    """Set the priority of anybody's job that has not started; capacity orders its line by it.

    Raises:
        OperatorsOnly: The asker is none; says nothing about the job.
        JobNotFound: There is no job of this whole id.
        JobHasLeftTheLine: It has started or ended.
    """
    if not asker.is_operator:
        raise OperatorsOnly
    async with context.database.transaction() as transaction:
        effect = partial(_prioritise, transaction, job_id, priority, now, context)
        return await once(transaction, effect, key=key, answer_type=Accepted, cipher=context.cipher, now=now)


async def _prioritise(
    transaction: Transaction, job_id: str, priority: int, now: datetime, context: Context
) -> Accepted:
    job = await lock_any(transaction, job_id=job_id)
    if job.phase not in _BEFORE_ITS_START:
        raise JobHasLeftTheLine(job)
    event = JobPrioritised(
        job_id=job.id, user_id=job.user_id, username=job.username, status=job.status, priority=priority
    )
    after = replace(job, version=job.version + 1, revision=job.revision + 1, updated_at=now)
    written = await write_change(
        transaction=transaction, before=job, changed=Change(after, (event,)), now=now, context=context
    )
    return Accepted(job.id, written.job.status, written.message_ids[0])
