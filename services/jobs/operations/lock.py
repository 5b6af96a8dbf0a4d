"""Finding a job and holding its row until the transaction ends."""

from services.jobs import storage
from services.jobs.domain.job import Job, Phase
from services.jobs.domain.job_id import id_range
from services.jobs.domain.transition_table import STOPPING
from services.jobs.operations.read import JobNotFound, known_range, one_of
from shared.database import Transaction
from shared.errors import Conflict


async def lock_own(transaction: Transaction, *, user_id: int, job_id: str) -> Job:
    """One's own job, by its id or a beginning of it, held until the transaction ends; raises as `get_job`."""
    first_id, last_id = known_range(job_id)
    return one_of(
        await transaction.fetch_all(storage.jobs.LOCK_OWN, user_id=user_id, first_id=first_id, last_id=last_id)
    )


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
    row = await transaction.fetch_one(storage.jobs.LOCK, job_id=whole_id) if whole_id is not None else None
    if row is None:
        raise JobNotFound
    return storage.jobs.to_job(row)


class JobNotActive(Conflict):
    """The request needs a running job."""

    def __init__(self, job: Job) -> None:
        state = STOPPING if job.phase is Phase.ENDING else job.status.value
        super().__init__(f"The job is not active: it is {state}")
