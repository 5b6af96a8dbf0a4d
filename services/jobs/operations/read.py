"""Reading jobs: nothing here writes."""

from collections.abc import Collection, Sequence
from uuid import UUID

import msgspec

from services.jobs import storage
from services.jobs.context import Context
from services.jobs.domain.job import Job, Phase
from services.jobs.domain.job_id import id_range
from services.jobs.operations.seal import unseal_jupyter_token
from shared.contracts.auth import Identity
from shared.contracts.capacity import EXPLAIN_SUBJECT, ExplainRequest, Explanation
from shared.contracts.jobs import JobStatus
from shared.database import Row, to_struct
from shared.errors import Conflict, NotFound
from shared.messaging import call_rpc

_EXPLAIN_SECONDS = 10.0


class JobNotFound(NotFound):
    """Missing, or someone else's: nobody can tell which."""

    def __init__(self) -> None:
        super().__init__("Job")


class OpenJob(msgspec.Struct, frozen=True, kw_only=True):
    """A job that waits, runs, or has not given everything back yet."""

    id: UUID
    name: str | None
    status: JobStatus
    status_reason: str | None
    gpu_type: str
    gpu_count: int
    node: str | None


class JobPage(msgspec.Struct, frozen=True):
    jobs: list[Job]
    total: int
    """Of all pages, from the same snapshot."""


async def get_job(*, user_id: int, job_id: str, context: Context) -> Job:
    """One's own job as it is shown, by its id or by a beginning of it of at least 8 characters.

    Raises:
        JobNotFound: No such job, or someone else's.
        Conflict: Several of one's jobs begin like this.
    """
    first_id, last_id = known_range(job_id)
    rows = await context.database.fetch_all(storage.jobs.FIND_OWN, user_id=user_id, first_id=first_id, last_id=last_id)
    return storage.jobs.to_shown_job(_one_of(rows))


async def get_own_or_any(*, identity: Identity, job_id: str, context: Context) -> Job:
    """As `get_job` for one's own job, and anybody's job of this whole id for operators."""
    try:
        return await get_job(user_id=identity.user_id, job_id=job_id, context=context)
    except JobNotFound:
        found = id_range(job_id)
        if not identity.is_operator or found is None or found[0] != found[1]:
            raise
    row = await context.database.fetch_one(storage.jobs.FIND, job_id=found[0])
    if row is None:
        raise JobNotFound
    return storage.jobs.to_shown_job(row)


async def list_jobs(
    *, user_id: int, statuses: Sequence[JobStatus] | None, limit: int, offset: int, context: Context
) -> JobPage:
    """One's own jobs as they are shown, newest first; `statuses` None means all."""
    rows = await context.database.fetch_all(
        storage.jobs.LIST_OWN,
        user_id=user_id,
        statuses=None if statuses is None else list(statuses),
        limit=limit,
        offset=offset,
    )
    return JobPage([storage.jobs.to_shown_job(row) for row in rows if row["id"] is not None], rows[0]["total"])


async def list_open_jobs(*, user_id: int, context: Context) -> list[OpenJob]:
    """A user's jobs that still hold something or wait, oldest first: for operators."""
    rows = await context.database.fetch_all(storage.jobs.OPEN_OF_USER, user_id=user_id)
    return [to_struct(row, OpenJob) for row in rows]


async def find_jobs(*, job_ids: Collection[UUID], context: Context) -> list[Job]:
    """Jobs by their ids, for workers."""
    if not job_ids:
        return []
    rows = await context.database.fetch_all(storage.jobs.FIND_ALL, ids=list(job_ids))
    return [storage.jobs.to_job(row) for row in rows]


async def job_history(*, user_id: int, job_id: str, context: Context) -> tuple[Job, list[Row]]:
    """One's own job, and each status it had with its time (`at`) and reason, oldest first; raises as `get_job`."""
    job = await get_job(user_id=user_id, job_id=job_id, context=context)
    return job, await context.database.fetch_all(storage.jobs.HISTORY, job_id=job.id)


def known_range(text: str) -> tuple[UUID, UUID]:
    """First and last id that begin with `text`.

    Raises:
        JobNotFound: It is no beginning of an id, or too short.
    """
    found = id_range(text)
    if found is None:
        raise JobNotFound
    return found


def one_of(rows: Sequence[Row]) -> Job:
    """The job that was looked for.

    Raises:
        JobNotFound: There is none.
        Conflict: There are two.
    """
    return storage.jobs.to_job(_one_of(rows))


def _one_of(rows: Sequence[Row]) -> Row:
    if not rows:
        raise JobNotFound
    if len(rows) > 1:
        raise Conflict("Several of your jobs have ids that begin like this: give more characters of the id")
    return rows[0]


def shown_jupyter_token(job: Job, context: Context) -> str | None:
    """The token for the job's owner; None unless Jupyter answers with it."""
    is_on = job.phase is Phase.ACTIVE and job.jupyter_enabled and job.jupyter_applied == job.jupyter_revision
    if not is_on or job.jupyter_token_sealed is None:
        return None
    return unseal_jupyter_token(job, context)


async def explain_job(*, user_id: int, job_id: str, context: Context) -> tuple[Job, Explanation]:
    """One's own job, and what capacity says of its place in the queue; raises as `get_job`.

    Raises:
        Unavailable: Capacity does not answer.
    """
    job = await get_job(user_id=user_id, job_id=job_id, context=context)
    return job, await call_rpc(
        context.broker, EXPLAIN_SUBJECT, ExplainRequest(job.id), Explanation, timeout_seconds=_EXPLAIN_SECONDS
    )
