"""Reading jobs: nothing here writes."""

from collections.abc import Collection, Sequence
from uuid import UUID

import msgspec

from services.jobs import storage
from services.jobs.context import Context
from services.jobs.domain.extension import as_shown
from services.jobs.domain.job import Job, Phase
from services.jobs.domain.job_id import IdRange, id_range
from services.jobs.domain.job_list import JobQuery, JobVersion, VersionPage
from services.jobs.operations.seal import unseal_jupyter_token
from shared.contracts.auth import Identity
from shared.contracts.capacity import EXPLAIN_SUBJECT, ExplainRequest, Explanation
from shared.contracts.jobs import JobStatus
from shared.database import Executor, Row, to_struct
from shared.errors import Conflict, NotFound
from shared.messaging import call_rpc
from shared.operators import check_operator

EVERYBODY = "*"
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


class ShownJob(msgspec.Struct, frozen=True):
    """A job as its owner sees it."""

    job: Job
    version: JobVersion
    lasts: bool
    """As long as this is the job's version it is shown like this, but for what is told in relation to the time of day;
    False: an extension will be shown in a moment."""


async def get_job(*, user_id: int, job_id: str, context: Context) -> Job:
    """One's own job as it is shown, by its id or by a beginning of it of at least 8 characters.

    Raises:
        JobNotFound: No such job, or someone else's.
        Conflict: Several of one's jobs begin like this.
    """
    return (await get_shown_job(user_id=user_id, ids=known_range(job_id), context=context)).job


async def get_shown_job(*, user_id: int, ids: IdRange, context: Context) -> ShownJob:
    """The same with its version; raises as `get_job`."""
    first_id, last_id = ids
    rows = await context.database.fetch_all(storage.jobs.FIND_OWN, user_id=user_id, first_id=first_id, last_id=last_id)
    return _shown(_one_of(rows))


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


async def find_version(*, user_id: int, ids: IdRange, context: Context) -> JobVersion:
    """The present version of one's own job; raises as `get_job`."""
    first_id, last_id = ids
    rows = await context.database.fetch_all(
        storage.versions.FIND_OWN, user_id=user_id, first_id=first_id, last_id=last_id
    )
    return JobVersion(_one_of(rows)["job_version"])


async def find_versions(
    wanted: Collection[tuple[int, UUID]], *, context: Context
) -> dict[tuple[int, UUID], JobVersion]:
    """The present versions of jobs, by user and id; without what is missing, or someone else's."""
    ids = [job_id for _, job_id in wanted]
    if len(ids) == 1:
        rows = await context.database.fetch_all(storage.versions.OF_ONE, job_id=ids[0])
    else:
        rows = await context.database.fetch_all(storage.versions.OF_SEVERAL, ids=ids)
    found = [(row["user_id"], JobVersion(row["job_version"])) for row in rows]
    return {(user_id, version.job_id): version for user_id, version in found}


async def list_versions(*, user_id: int, query: JobQuery, executor: Executor) -> VersionPage:
    """A page of one's own jobs."""
    statement = storage.versions.list_versions(query)
    filtered = {} if query.statuses is None else {"statuses": query.statuses}
    (row,) = await executor.fetch_all(statement, user_id=user_id, limit=query.limit, offset=query.offset, **filtered)
    return storage.versions.to_page(row)


async def list_jobs_of_others(
    *, asker: Identity, whose: str, query: JobQuery, context: Context
) -> tuple[list[Job], int]:
    """A page of the jobs of all users of a name or of everybody (`*`), newest first; and how many there are.

    Raises:
        OperatorsOnly: The asker is no operator.
        NotFound: There is no user of that name who has had a job.
    """
    check_operator(asker, "list the jobs of others")
    of_all = whose == EVERYBODY
    given: dict[str, object] = {} if query.statuses is None else {"statuses": query.statuses}
    async with context.database.snapshot() as snapshot:
        if not of_all:
            rows = await snapshot.fetch_all(storage.owners.USERS_OF_NAME, username=whose)
            if not rows:
                raise NotFound("User")
            given["user_ids"] = [row["user_id"] for row in rows]
        filtered = query.statuses is not None
        page = storage.lists.list_ids(of_all=of_all, filtered=filtered)
        ids = [row["id"] for row in await snapshot.fetch_all(page, limit=query.limit, offset=query.offset, **given)]
        total = await snapshot.fetch_value(storage.lists.count(of_all=of_all, filtered=filtered), **given)
        found = {shown.job.id: shown.job for shown in await find_shown_jobs(job_ids=ids, executor=snapshot)}
    return [found[job_id] for job_id in ids], total


async def find_shown_jobs(*, job_ids: Collection[UUID], executor: Executor) -> list[ShownJob]:
    """Jobs as their owners see them, in any order."""
    rows = await executor.fetch_all(storage.jobs.FIND_SHOWN, ids=list(job_ids))
    return [_shown(row) for row in rows]


def _shown(row: Row) -> ShownJob:
    job, read_at = storage.jobs.to_job(row), row["read_at"]
    lasts = all(one.until <= read_at for one in job.unshown_extensions)
    return ShownJob(as_shown(job, read_at), JobVersion(row["job_version"]), lasts)


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


def known_range(text: str) -> IdRange:
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
