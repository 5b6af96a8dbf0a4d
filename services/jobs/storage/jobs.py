"""The jobs themselves: submit, write, find, lock, list."""

from typing import Any

import msgspec
import sqlalchemy as sa
from sqlalchemy import bindparam
from sqlalchemy.dialects.postgresql import insert

from services.jobs.domain.extension import as_shown
from services.jobs.domain.job import Job
from services.jobs.storage.tables import TIME, job_history, job_users, jobs
from shared.database import Row, Statement
from shared.messaging.outbox import insert_event_with, next_message_id

JOB_FIELDS = tuple(field.name for field in msgspec.structs.fields(Job))
JOB_COLUMNS = [jobs.c[name] for name in JOB_FIELDS]
_NEVER_CHANGED = {
    "id", "user_id", "username", "name", "image", "command", "working_dir", "instance_type", "gpu_type", "gpu_count",
    "disk_name", "disk_id", "env_var_names", "github_user", "submit_message_id", "created_at",
}  # fmt: skip
_CHANGED = tuple(name for name in JOB_FIELDS if name not in _NEVER_CHANGED)
_OWN = sa.and_(
    jobs.c.user_id == bindparam("user_id"), jobs.c.id >= bindparam("first_id"), jobs.c.id <= bindparam("last_id")
)


def _history_of(changed: Any, condition: Any = None) -> Any:
    columns = [job_history.c[name] for name in ("job_id", "revision", "status", "reason", "at")]
    source = sa.select(
        changed.c.id, changed.c.revision, changed.c.status, changed.c.status_reason, changed.c.updated_at
    )
    source = source if condition is None else source.where(condition)
    return sa.insert(job_history).from_select(columns, source)


_SUBMITTED = (*JOB_FIELDS, "request_mac", "env_sealed", "due_at")
_inserted = (
    insert(jobs)
    .from_select(
        _SUBMITTED,
        sa.select(
            *(
                next_message_id.c.id if name == "submit_message_id" else bindparam(name, type_=jobs.c[name].type)
                for name in _SUBMITTED
            )
        ),
    )
    .on_conflict_do_nothing(index_elements=[jobs.c.id])
    .returning(
        jobs.c.id, jobs.c.revision, jobs.c.status, jobs.c.status_reason, jobs.c.updated_at, jobs.c.submit_message_id
    )
    .cte("inserted")
)
SUBMIT = Statement(
    sa.select(_inserted.c.submit_message_id).add_cte(
        _history_of(_inserted).cte("told"),
        insert_event_with(_inserted, _inserted.c.submit_message_id).cte("event"),
    )
)
"""The job, the first line of its history and its event, all in one; its message ID, no row when the id is taken."""
_saved = (
    sa.update(jobs)
    .where(jobs.c.id == bindparam("job_id"), jobs.c.revision == bindparam("old_revision"))
    .values(
        {name: bindparam(name, type_=jobs.c[name].type) for name in _CHANGED}
        | {
            "due_at": bindparam("due_at", type_=TIME),
            "access_due_at": bindparam("access_due_at", type_=TIME),
            # an ended job needs its secrets no more
            "env_sealed": sa.case(
                (bindparam("released_at", type_=TIME).is_not(None), sa.null()), else_=jobs.c.env_sealed
            ),
        }
    )
    .returning(jobs.c.id, jobs.c.revision, jobs.c.status, jobs.c.status_reason, jobs.c.updated_at)
    .cte("saved")
)
_told = _history_of(_saved, _saved.c.status != bindparam("old_status", type_=sa.Text)).returning(job_history.c.job_id)
_forgotten = (
    sa.delete(job_users)
    .where(job_users.c.job_id.in_(sa.select(_saved.c.id)), bindparam("released_at", type_=TIME).is_not(None))
    .returning(job_users.c.job_id)
)
SAVE = Statement(sa.select(sa.func.count()).select_from(_saved).add_cte(_told.cte("told"), _forgotten.cte("forgotten")))
"""Write a job that was read at `old_revision`; 0 when it has changed since. A new status goes to the history; an ended
job's keys of its users are forgotten."""
# what time it is, for rules that all replicas must see alike: their own clocks may differ
READ_AT = sa.func.clock_timestamp().label("read_at")
CLOCK = Statement(sa.select(READ_AT))
FIND = Statement(sa.select(*JOB_COLUMNS, READ_AT).where(jobs.c.id == bindparam("job_id")))
FIND_SUBMITTED = Statement(sa.select(*JOB_COLUMNS, jobs.c.request_mac).where(jobs.c.id == bindparam("job_id")))
HISTORY = Statement(
    sa.select(job_history.c.status, job_history.c.at, job_history.c.reason)
    .where(job_history.c.job_id == bindparam("job_id"))
    .order_by(job_history.c.revision)
)
LOCK = Statement(sa.select(*JOB_COLUMNS).where(jobs.c.id == bindparam("job_id")).with_for_update())
FIND_OWN = Statement(sa.select(*JOB_COLUMNS, READ_AT).where(_OWN).order_by(jobs.c.id).limit(2))
"""Two rows mean that the beginning of the id is ambiguous."""
LOCK_OWN = Statement(sa.select(*JOB_COLUMNS).where(_OWN).order_by(jobs.c.id).limit(2).with_for_update())
_filter = sa.and_(
    jobs.c.user_id == bindparam("user_id"),
    sa.or_(
        bindparam("statuses", type_=sa.ARRAY(sa.Text)).is_(None),
        jobs.c.status == sa.any_(bindparam("statuses", type_=sa.ARRAY(sa.Text))),
    ),
)
_total = sa.select(sa.func.count().label("total")).select_from(jobs).where(_filter).subquery("counted")
_page = (
    sa.select(*JOB_COLUMNS)
    .where(_filter)
    .order_by(jobs.c.created_at.desc(), jobs.c.id.desc())
    .limit(bindparam("limit", type_=sa.BigInteger))
    .offset(bindparam("offset", type_=sa.BigInteger))
    .subquery("page")
)
LIST_OWN = Statement(
    sa.select(_total.c.total, *_page.c, READ_AT)
    .select_from(_total.outerjoin(_page, sa.true()))
    .order_by(_page.c.created_at.desc(), _page.c.id.desc())
)
"""One page and the total from one snapshot; an empty page is one row of nulls."""
OPEN_OF_USER = Statement(
    sa.select(
        jobs.c.id, jobs.c.name, jobs.c.status, jobs.c.status_reason, jobs.c.gpu_type, jobs.c.gpu_count, jobs.c.node
    )
    .where(jobs.c.user_id == bindparam("user_id"), jobs.c.released_at.is_(None))
    .order_by(jobs.c.created_at, jobs.c.id)
)
ENVIRONMENT = Statement(sa.select(jobs.c.env_sealed).where(jobs.c.id == bindparam("job_id")))


def to_job(row: Row) -> Job:
    """The job in a row that has its columns."""
    return msgspec.convert({name: row[name] for name in JOB_FIELDS}, Job)


def to_shown_job(row: Row) -> Job:
    """The job in a row that has its columns and `read_at`, as its owner sees it then."""
    return as_shown(to_job(row), row["read_at"])


def submit_columns(job: Job) -> dict[str, Any]:
    """Parameters of SUBMIT that are the job's; its message ID is made by the statement."""
    columns = msgspec.structs.asdict(job)
    del columns["submit_message_id"]
    return columns


def save_columns(job: Job) -> dict[str, Any]:
    """Parameters of SAVE that are the changed job's."""
    return {name: getattr(job, name) for name in _CHANGED} | {
        "access_due_at": job.updated_at if job.wants_access_work else None
    }
