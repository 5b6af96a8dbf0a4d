"""The jobs themselves: submit, write, find, lock, list."""

from collections.abc import Sequence
from datetime import datetime
from functools import cache
from typing import Any

import msgspec
import sqlalchemy as sa
from sqlalchemy import bindparam

from services.jobs.domain.extension import as_shown
from services.jobs.domain.job import Job
from services.jobs.storage.tables import TIME, job_access, job_history, job_users, jobs
from services.jobs.storage.versions import VERSION
from shared.database import Row, Statement
from shared.database.purge import delete_some
from shared.database.rows import by_column, given_rows

JOB_FIELDS = tuple(field.name for field in msgspec.structs.fields(Job))
ACCESS_FIELDS = tuple(name for name in JOB_FIELDS if name in job_access.c)
OWN_FIELDS = tuple(name for name in JOB_FIELDS if name not in job_access.c)
WITH_ACCESS = jobs.join(job_access, job_access.c.job_id == jobs.c.id)
JOB_COLUMNS = [(job_access if name in job_access.c else jobs).c[name] for name in JOB_FIELDS]
LOCKED = (jobs, job_access)
"""What holds a job. Both rows, in this order: of a row that is only read beside a locked one, an older version may be
seen than the one that the lock was waited for."""
_OWN = sa.and_(
    jobs.c.user_id == bindparam("user_id"), jobs.c.id >= bindparam("first_id"), jobs.c.id <= bindparam("last_id")
)


def _history_of(changed: Any) -> Any:
    columns = [job_history.c[name] for name in ("job_id", "revision", "status", "reason", "at")]
    source = sa.select(
        changed.c.id, changed.c.revision, changed.c.status, changed.c.status_reason, changed.c.updated_at
    )
    return sa.insert(job_history).from_select(columns, source)


# what time it is, for rules that all replicas must see alike: their own clocks may differ
READ_AT = sa.func.clock_timestamp().label("read_at")
CLOCK = Statement(sa.select(READ_AT))
_JOB = sa.select(*JOB_COLUMNS).select_from(WITH_ACCESS)
_THIS = jobs.c.id == bindparam("job_id")
FIND = Statement(_JOB.add_columns(READ_AT).where(_THIS))
FIND_SUBMITTED = Statement(_JOB.add_columns(jobs.c.request_mac).where(_THIS))
SHARES_SHORT_ID = Statement(
    sa.select(
        sa.exists().where(
            jobs.c.id.between(bindparam("first"), bindparam("last")),
            jobs.c.id != bindparam("job_id"),
            jobs.c.released_at.is_(None),
        )
    )
)
HISTORY = Statement(
    sa.select(job_history.c.status, job_history.c.at, job_history.c.reason)
    .where(job_history.c.job_id == bindparam("job_id"))
    .order_by(job_history.c.revision)
)
LOCK = Statement(_JOB.where(_THIS).with_for_update(of=LOCKED))


def _access_of(found: Any, *, locked: bool = False) -> Any:
    """What is wanted of jobs that were found, looked up one by one.

    As a plain join, PostgreSQL, which does not know how few jobs there are, would read the whole table, or plan anew at
    each run.
    """
    wanted = sa.select(*(job_access.c[name] for name in ACCESS_FIELDS))
    access = wanted.where(job_access.c.job_id == found.c.id).limit(sa.literal_column("1"))
    return (access.with_for_update() if locked else access).lateral("access")


def _found(jobs_found: Any, *, locked: bool = False) -> Any:
    found = (jobs_found.with_for_update() if locked else jobs_found).subquery("found")
    access = _access_of(found, locked=locked)
    return sa.select(*found.c, *access.c).select_from(found.join(access, sa.true())).order_by(found.c.id)


_JOBS = sa.select(*(jobs.c[name] for name in OWN_FIELDS))
_OWN_TWO = _JOBS.where(_OWN).order_by(jobs.c.id).limit(sa.literal_column("2"))
_OF_IDS = jobs.c.id == sa.any_(bindparam("ids", type_=sa.ARRAY(sa.Uuid)))
_THESE = _JOBS.where(_OF_IDS)
FIND_ALL = Statement(_found(_THESE))
LOCK_ALL = Statement(_found(_THESE.order_by(jobs.c.id), locked=True))
"""In one order, so that two who lock the same jobs do not wait for each other."""
FIND_SHOWN = Statement(_found(_JOBS.add_columns(VERSION).where(_OF_IDS)).add_columns(READ_AT))
"""As owners see them, with their versions."""
FIND_OWN = Statement(_found(_OWN_TWO.add_columns(VERSION)).add_columns(READ_AT))
"""Two rows mean that the beginning of the id is ambiguous."""
LOCK_OWN = Statement(_found(_OWN_TWO, locked=True))
OPEN_OF_USER = Statement(
    sa.select(
        jobs.c.id, jobs.c.name, jobs.c.status, jobs.c.status_reason, jobs.c.gpu_type, jobs.c.gpu_count, jobs.c.node
    )
    .where(jobs.c.user_id == bindparam("user_id"), jobs.c.released_at.is_(None))
    .order_by(jobs.c.created_at, jobs.c.id)
)
PURGE = delete_some(jobs, jobs.c.released_at < bindparam("before", type_=TIME))
"""Jobs that had given everything back by then, with all that belongs to them."""
ENVIRONMENT = Statement(sa.select(jobs.c.env_sealed).where(jobs.c.id == bindparam("job_id")))


def to_job(row: Row) -> Job:
    """The job in a row that has its columns, and maybe others."""
    return msgspec.convert(dict(row), Job)


def to_shown_job(row: Row) -> Job:
    """The job in a row that has its columns and `read_at`, as its owner sees it then."""
    return as_shown(to_job(row), row["read_at"])


class Saving(msgspec.Struct, frozen=True):
    """A statement that writes what a change has changed, and nothing else; it gives 0 when the job is not as before."""

    statement: Statement
    parameters: dict[str, Any]


def saving(before: Job, after: Job, now: datetime) -> Saving:
    """How to write `after` in place of `before`, which was read at its revision.

    A new status goes to the history; of a job that is over the secrets, and the keys of its users, are forgotten. What
    opens it is due to be brought into its pod when that, or whether it has a pod, has changed.
    """
    values = {name: getattr(after, name) for name in JOB_FIELDS if getattr(after, name) != getattr(before, name)}
    if makes_access_due(before, after):
        values[_ACCESS_DUE] = now
    if before.wants_access_work and not after.wants_access_work:
        values[_ACCESS_DUE] = None
    guard = {"job_id": before.id, "old_revision": before.revision}
    return Saving(_save(frozenset(values)), {**values, **guard, "job_due_at": now})


def makes_access_due(before: Job, after: Job) -> bool:
    """Whether the change leaves something to be brought into the job's pod, at once."""
    if not after.wants_access_work:
        return False
    return not before.wants_access_work or any(getattr(after, name) != getattr(before, name) for name in ACCESS_FIELDS)


MOVED = ("id", "revision", "capacity_sequence", "queue_position", "estimated_start_at", "status_reason", "updated_at")
"""What can change of a job while it stays in the queue."""
_MOVED_COLUMNS = {name: jobs.c[name].type for name in MOVED}
_moved = given_rows("moved", _MOVED_COLUMNS)
SAVE_MOVES = Statement(
    sa.update(jobs).where(jobs.c.id == _moved.c.id).values({name: _moved.c[name] for name in MOVED if name != "id"})
)
"""Writes the jobs of `moved_columns`, which are locked."""


def moved_columns(moved: Sequence[Job]) -> dict[str, list[Any]]:
    """Parameters of SAVE_MOVES."""
    return by_column([msgspec.structs.asdict(job) for job in moved], _MOVED_COLUMNS)


_ACCESS_DUE = "access_due_at"


@cache
def _save(names: frozenset[str]) -> Statement:
    saved = _job_saved(sorted(name for name in names if name in OWN_FIELDS), is_over="released_at" in names)
    parts = []
    access = {name: bindparam(name, type_=job_access.c[name].type) for name in ACCESS_FIELDS if name in names}
    if _ACCESS_DUE in names:
        access["due_at"] = bindparam(_ACCESS_DUE, type_=TIME)
    if access:
        of_saved = job_access.c.job_id == saved.c.id
        parts.append(sa.update(job_access).where(of_saved).values(access).returning(job_access.c.job_id).cte("access"))
    if "status" in names:
        parts.append(_history_of(saved).returning(job_history.c.job_id).cte("told"))
    if "released_at" in names:
        of_saved = job_users.c.job_id.in_(sa.select(saved.c.id))
        parts.append(sa.delete(job_users).where(of_saved).returning(job_users.c.job_id).cte("forgotten"))
    return Statement(sa.select(sa.func.count()).select_from(saved).add_cte(*parts))


def _job_saved(names: list[str], *, is_over: bool) -> Any:
    values: dict[str, Any] = {name: bindparam(name, type_=jobs.c[name].type) for name in names}
    values["due_at"] = bindparam("job_due_at", type_=TIME)
    if is_over:
        values["env_sealed"] = sa.null()
    return (
        sa.update(jobs)
        .where(_THIS, jobs.c.revision == bindparam("old_revision"))
        .values(values)
        .returning(jobs.c.id, jobs.c.revision, jobs.c.status, jobs.c.status_reason, jobs.c.updated_at)
        .cte("saved")
    )
