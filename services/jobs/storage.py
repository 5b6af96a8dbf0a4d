"""Tables of the jobs service and every SQL statement on them."""

from typing import Any

import msgspec
import sqlalchemy as sa
from sqlalchemy import bindparam
from sqlalchemy.dialects.postgresql import JSONB, insert

from services.jobs.domain.extension import as_shown
from services.jobs.domain.job import Job
from shared.database import Row, Statement
from shared.database.locks import lock_key
from shared.database.tables import outbox
from shared.messaging.outbox import insert_event_with, next_message_id

metadata = sa.MetaData()
_TIME = sa.DateTime(timezone=True)

jobs = sa.Table(
    "jobs",
    metadata,
    sa.Column("id", sa.Uuid, primary_key=True),
    sa.Column("user_id", sa.BigInteger, nullable=False),
    sa.Column("username", sa.Text, nullable=False),
    sa.Column("name", sa.Text),
    sa.Column("image", sa.Text, nullable=False),
    sa.Column("command", sa.Text),
    sa.Column("working_dir", sa.Text),
    sa.Column("instance_type", sa.Text, nullable=False),
    sa.Column("gpu_type", sa.Text, nullable=False),
    sa.Column("gpu_count", sa.Integer, nullable=False),
    sa.Column("duration_seconds", sa.Integer, nullable=False),
    sa.Column("disk_name", sa.Text),
    sa.Column("disk_id", sa.Uuid),
    sa.Column("availability_zone", sa.Text),
    sa.Column("ebs_volume_id", sa.Text),
    sa.Column("env_var_names", JSONB, nullable=False),
    sa.Column("github_user", sa.Text),
    sa.Column("jupyter_enabled", sa.Boolean, nullable=False),
    sa.Column("jupyter_port", sa.Integer),
    sa.Column("users", JSONB, nullable=False, server_default="[]"),
    sa.Column("jupyter_wanted", sa.Boolean, nullable=False, server_default="false"),
    sa.Column("jupyter_revision", sa.BigInteger, nullable=False, server_default="0"),
    sa.Column("jupyter_applied", sa.BigInteger, nullable=False, server_default="0"),
    sa.Column("jupyter_requested_at", _TIME),
    sa.Column("jupyter_message_id", sa.BigInteger),
    sa.Column("jupyter_error", sa.Text),
    sa.Column("jupyter_token_sealed", sa.LargeBinary),
    sa.Column("status", sa.Text, nullable=False),
    sa.Column("outcome", sa.Text),
    sa.Column("requeue_reason", sa.Text),
    sa.Column("version", sa.BigInteger, nullable=False),
    sa.Column("revision", sa.BigInteger, nullable=False),
    sa.Column("submit_message_id", sa.BigInteger, nullable=False),
    sa.Column("cancel_message_id", sa.BigInteger),
    sa.Column("epoch", sa.BigInteger, nullable=False),
    sa.Column("node", sa.Text),
    sa.Column("capacity_sequence", sa.BigInteger, nullable=False),
    sa.Column("queue_position", sa.Integer),
    sa.Column("estimated_start_at", _TIME),
    sa.Column("pod_name", sa.Text),
    sa.Column("pod_uid", sa.Text),
    sa.Column("node_ip", sa.Text),
    sa.Column("node_port", sa.Integer),
    sa.Column("pod_ends_at", _TIME),
    sa.Column("restarts", sa.Integer, nullable=False, server_default="0"),
    sa.Column("fault", sa.Text),
    sa.Column("fault_since", _TIME),
    sa.Column("detail", sa.Text),
    sa.Column("status_reason", sa.Text),
    sa.Column("failure_reason", sa.Text),
    sa.Column("exit_code", sa.Integer),
    sa.Column("warning", sa.Text),
    sa.Column("warned_minutes", sa.Integer),
    sa.Column("log_kept", sa.Boolean, nullable=False),
    sa.Column("log_final", sa.Boolean, nullable=False),
    sa.Column("log_tries", sa.Integer, nullable=False),
    sa.Column("created_at", _TIME, nullable=False),
    sa.Column("updated_at", _TIME, nullable=False),
    sa.Column("granted_at", _TIME),
    sa.Column("launched_at", _TIME),
    sa.Column("expires_at", _TIME),
    sa.Column("unshown_extensions", JSONB, nullable=False, server_default="[]"),
    sa.Column("ended_at", _TIME),
    sa.Column("released_at", _TIME),
    # below: not part of domain.job.Job
    sa.Column("request_mac", sa.LargeBinary, nullable=False),
    sa.Column("env_sealed", sa.LargeBinary),
    sa.Column("access_due_at", _TIME),
    sa.Column("access_worked_until", _TIME),
    sa.Column("access_worked_by", sa.Uuid),
    sa.Column("due_at", _TIME, nullable=False),
    sa.Column("worked_until", _TIME),
    sa.Column("worked_by", sa.Uuid),
    sa.Index("jobs_of_user", "user_id", sa.text("created_at DESC"), sa.text("id DESC"), postgresql_include=["status"]),
    sa.Index("jobs_of_user_by_id", "user_id", "id"),
    sa.Index("jobs_waiting", "id", postgresql_where=sa.text("status IN ('pending', 'queued')")),
    sa.Index("jobs_due", "due_at", postgresql_where=sa.text("node IS NOT NULL AND released_at IS NULL")),
    sa.Index("jobs_with_access_due", "access_due_at", postgresql_where=sa.text("access_due_at IS NOT NULL")),
)

job_history = sa.Table(
    "job_history",
    metadata,
    sa.Column("job_id", sa.Uuid, sa.ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True),
    sa.Column("revision", sa.BigInteger, primary_key=True),
    sa.Column("status", sa.Text, nullable=False),
    sa.Column("reason", sa.Text),
    sa.Column("at", _TIME, nullable=False),
)

job_users = sa.Table(
    "job_users",
    metadata,
    sa.Column("job_id", sa.Uuid, sa.ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True),
    # GitHub's name in lower case
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("keys", JSONB, nullable=False),
    sa.Column("fetched_at", _TIME, nullable=False),
)

disabled_users = sa.Table(
    "disabled_users",
    metadata,
    sa.Column("user_id", sa.BigInteger, primary_key=True, autoincrement=False),
    # auth's number of the change: what is older changes nothing
    sa.Column("sequence", sa.BigInteger, nullable=False),
    # when the user's jobs end; null when the user was enabled again
    sa.Column("jobs_end_at", _TIME),
)

job_logs = sa.Table(
    "job_logs",
    metadata,
    sa.Column("job_id", sa.Uuid, sa.ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True),
    # compressed, then encrypted: users print what they should not
    sa.Column("sealed", sa.LargeBinary, nullable=False),
    sa.Column("kept_at", _TIME, nullable=False),
)

_JOB_FIELDS = tuple(field.name for field in msgspec.structs.fields(Job))
_JOB_COLUMNS = [jobs.c[name] for name in _JOB_FIELDS]
_NEVER_CHANGED = {
    "id", "user_id", "username", "name", "image", "command", "working_dir", "instance_type", "gpu_type", "gpu_count",
    "disk_name", "disk_id", "env_var_names", "github_user", "submit_message_id", "created_at",
}  # fmt: skip
_CHANGED = tuple(name for name in _JOB_FIELDS if name not in _NEVER_CHANGED)
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


_SUBMITTED = (*_JOB_FIELDS, "request_mac", "env_sealed", "due_at")
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
            "due_at": bindparam("due_at", type_=_TIME),
            "access_due_at": bindparam("access_due_at", type_=_TIME),
            # an ended job needs its secrets no more
            "env_sealed": sa.case(
                (bindparam("released_at", type_=_TIME).is_not(None), sa.null()), else_=jobs.c.env_sealed
            ),
        }
    )
    .returning(jobs.c.id, jobs.c.revision, jobs.c.status, jobs.c.status_reason, jobs.c.updated_at)
    .cte("saved")
)
_told = _history_of(_saved, _saved.c.status != bindparam("old_status", type_=sa.Text)).returning(job_history.c.job_id)
_forgotten = (
    sa.delete(job_users)
    .where(job_users.c.job_id.in_(sa.select(_saved.c.id)), bindparam("released_at", type_=_TIME).is_not(None))
    .returning(job_users.c.job_id)
)
SAVE = Statement(sa.select(sa.func.count()).select_from(_saved).add_cte(_told.cte("told"), _forgotten.cte("forgotten")))
"""Write a job that was read at `old_revision`; 0 when it has changed since. A new status goes to the history; an ended
job's keys of its users are forgotten."""

_noted = insert(disabled_users).values(
    {name: bindparam(name, type_=disabled_users.c[name].type) for name in ("user_id", "sequence", "jobs_end_at")}
)
NOTE_DISABLED = Statement(
    _noted.on_conflict_do_update(
        index_elements=[disabled_users.c.user_id],
        set_={"sequence": _noted.excluded.sequence, "jobs_end_at": _noted.excluded.jobs_end_at},
        where=disabled_users.c.sequence < _noted.excluded.sequence,
    )
)
LOCK_JOBS_OF_DISABLED = Statement(
    sa.select(*_JOB_COLUMNS)
    .join(disabled_users, disabled_users.c.user_id == jobs.c.user_id)
    .where(
        disabled_users.c.jobs_end_at <= bindparam("now", type_=_TIME),
        jobs.c.released_at.is_(None),
        jobs.c.outcome.is_(None),
    )
    .limit(bindparam("limit", type_=sa.BigInteger))
    .with_for_update(skip_locked=True, of=jobs)
)
"""Also of a job that was submitted while the news was on its way."""

# held until the commit: two submissions of one user at once cannot both be the last that is allowed
LOCK_WAITING = Statement(
    sa.select(
        sa.func.pg_advisory_xact_lock(lock_key("wait"), sa.func.hashint8(bindparam("user_id", type_=sa.BigInteger)))
    )
)
COUNT_WAITING = Statement(
    sa.select(sa.func.count()).where(
        jobs.c.user_id == bindparam("user_id"),
        jobs.c.status == sa.any_(sa.literal(["pending", "queued"], sa.ARRAY(sa.Text))),
    )
)

# what time it is, for rules that all replicas must see alike: their own clocks may differ
_READ_AT = sa.func.clock_timestamp().label("read_at")
CLOCK = Statement(sa.select(_READ_AT))
WAITING = Statement(
    sa.select(jobs.c.id)
    .where(
        sa.text("status IN ('pending', 'queued')"),
        jobs.c.id > bindparam("after", type_=sa.Uuid),
        jobs.c.updated_at < bindparam("before", type_=_TIME),
    )
    .order_by(jobs.c.id)
    .limit(bindparam("limit", type_=sa.BigInteger))
)
LAST_PRIORITY = Statement(
    sa.select(outbox.c.data["priority"].astext.cast(sa.Integer))
    .where(outbox.c.entity_id == bindparam("entity_id"), outbox.c.type == bindparam("type"))
    .order_by(outbox.c.id.desc())
    .limit(1)
)

FIND = Statement(sa.select(*_JOB_COLUMNS, _READ_AT).where(jobs.c.id == bindparam("job_id")))
FIND_SUBMITTED = Statement(sa.select(*_JOB_COLUMNS, jobs.c.request_mac).where(jobs.c.id == bindparam("job_id")))
HISTORY = Statement(
    sa.select(job_history.c.status, job_history.c.at, job_history.c.reason)
    .where(job_history.c.job_id == bindparam("job_id"))
    .order_by(job_history.c.revision)
)
LOCK = Statement(sa.select(*_JOB_COLUMNS).where(jobs.c.id == bindparam("job_id")).with_for_update())
FIND_OWN = Statement(sa.select(*_JOB_COLUMNS, _READ_AT).where(_OWN).order_by(jobs.c.id).limit(2))
"""Two rows mean that the beginning of the id is ambiguous."""
LOCK_OWN = Statement(sa.select(*_JOB_COLUMNS).where(_OWN).order_by(jobs.c.id).limit(2).with_for_update())

_filter = sa.and_(
    jobs.c.user_id == bindparam("user_id"),
    sa.or_(
        bindparam("statuses", type_=sa.ARRAY(sa.Text)).is_(None),
        jobs.c.status == sa.any_(bindparam("statuses", type_=sa.ARRAY(sa.Text))),
    ),
)
_total = sa.select(sa.func.count().label("total")).select_from(jobs).where(_filter).subquery("counted")
_page = (
    sa.select(*_JOB_COLUMNS)
    .where(_filter)
    .order_by(jobs.c.created_at.desc(), jobs.c.id.desc())
    .limit(bindparam("limit", type_=sa.BigInteger))
    .offset(bindparam("offset", type_=sa.BigInteger))
    .subquery("page")
)
LIST_OWN = Statement(
    sa.select(_total.c.total, *_page.c, _READ_AT)
    .select_from(_total.outerjoin(_page, sa.true()))
    .order_by(_page.c.created_at.desc(), _page.c.id.desc())
)
"""One page and the total from one snapshot; an empty page is one row of nulls."""

_waiting = (
    sa.select(jobs.c.id)
    .where(
        jobs.c.node.is_not(None),
        jobs.c.released_at.is_(None),
        sa.or_(
            jobs.c.due_at <= bindparam("now", type_=_TIME),
            jobs.c.id == sa.any_(bindparam("hinted", type_=sa.ARRAY(sa.Uuid))),
        ),
        # the database's clock: replicas' own may differ
        sa.or_(jobs.c.worked_until.is_(None), jobs.c.worked_until < sa.func.clock_timestamp()),
    )
    .order_by(jobs.c.due_at)
    .limit(bindparam("limit", type_=sa.BigInteger))
    .with_for_update(skip_locked=True)
    .cte("waiting")
)
CLAIM = Statement(
    sa.update(jobs)
    .where(jobs.c.id.in_(sa.select(_waiting.c.id)))
    .values(
        worked_until=sa.func.clock_timestamp() + bindparam("lease", type_=sa.Interval),
        worked_by=bindparam("worker", type_=sa.Uuid),
    )
    .returning(*_JOB_COLUMNS)
)
"""Jobs that are due or hinted at and that nobody works on; they are the worker's until its lease ends."""

FINISH = Statement(
    sa.update(jobs)
    .where(jobs.c.id == bindparam("job_id"), jobs.c.worked_by == bindparam("worker"))
    .values(
        worked_until=None,
        worked_by=None,
        # a change that came meanwhile wants a look at once
        due_at=sa.case(
            (jobs.c.revision == bindparam("known_revision"), bindparam("next_look_at", type_=_TIME)),
            else_=jobs.c.due_at,
        ),
    )
)
_access_waiting = (
    sa.select(jobs.c.id)
    .where(
        jobs.c.access_due_at <= bindparam("now", type_=_TIME),
        sa.or_(jobs.c.access_worked_until.is_(None), jobs.c.access_worked_until < sa.func.clock_timestamp()),
    )
    .order_by(jobs.c.access_due_at)
    .limit(bindparam("limit", type_=sa.BigInteger))
    .with_for_update(skip_locked=True)
    .cte("waiting")
)
_access_lease = sa.func.clock_timestamp() + bindparam("lease", type_=sa.Interval)
CLAIM_ACCESS = Statement(
    sa.update(jobs)
    .where(jobs.c.id.in_(sa.select(_access_waiting.c.id)))
    .values(access_worked_until=_access_lease, access_worked_by=bindparam("worker", type_=sa.Uuid))
    .returning(*_JOB_COLUMNS)
)
"""Jobs whose pods lack keys or Jupyter and that nobody works on; the keys' and Jupyter's lease is apart from the pod's,
since starting Jupyter takes long and must not keep a job from expiring."""
_OWN_ACCESS = sa.and_(jobs.c.id == bindparam("job_id"), jobs.c.access_worked_by == bindparam("worker"))
RENEW_ACCESS = Statement(
    sa.update(jobs).where(_OWN_ACCESS).values(access_worked_until=_access_lease).returning(jobs.c.id)
)
"""No row: the lease is lost."""
FINISH_ACCESS = Statement(
    sa.update(jobs)
    .where(_OWN_ACCESS)
    .values(
        access_worked_until=None,
        access_worked_by=None,
        access_due_at=sa.case(
            # a change that came meanwhile wants a look at once, or no more
            (jobs.c.revision == bindparam("known_revision"), bindparam("next_try_at", type_=_TIME)),
            else_=jobs.c.access_due_at,
        ),
    )
)
KEEP_KEYS = Statement(
    insert(job_users)
    .values({c.name: bindparam(c.name, type_=c.type) for c in job_users.c})
    .on_conflict_do_update(
        index_elements=[job_users.c.job_id, job_users.c.name],
        set_={"keys": bindparam("keys", type_=JSONB), "fetched_at": bindparam("fetched_at", type_=_TIME)},
    )
)
KEYS = Statement(
    sa.select(job_users.c.name, job_users.c["keys"])
    .where(job_users.c.job_id == bindparam("job_id"))
    .order_by(job_users.c.name)
)
ENVIRONMENT = Statement(sa.select(jobs.c.env_sealed).where(jobs.c.id == bindparam("job_id")))
KEEP_LOG = Statement(
    insert(job_logs)
    .values(job_id=bindparam("job_id"), sealed=bindparam("sealed"), kept_at=bindparam("now"))
    .on_conflict_do_update(
        index_elements=[job_logs.c.job_id], set_={"sealed": bindparam("sealed"), "kept_at": bindparam("now")}
    )
)
KEPT_LOG = Statement(sa.select(job_logs.c.sealed).where(job_logs.c.job_id == bindparam("job_id")))
LEASES = Statement(
    sa.select(jobs.c.id, jobs.c.epoch, sa.and_(jobs.c.node.is_not(None), jobs.c.released_at.is_(None)).label("live"))
    .where(jobs.c.id == sa.any_(bindparam("ids", type_=sa.ARRAY(sa.Uuid))))
)  # fmt: skip


def to_job(row: Row) -> Job:
    """The job in a row that has its columns."""
    return msgspec.convert({name: row[name] for name in _JOB_FIELDS}, Job)


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
