"""Writing new jobs: their rows, access, first lines of history, events and entries of the audit, in one statement."""

from collections.abc import Sequence
from typing import Any

import msgspec
import sqlalchemy as sa
from sqlalchemy import bindparam
from sqlalchemy.dialects.postgresql import insert

from services.jobs.domain.job import Job
from services.jobs.storage.jobs import OWN_FIELDS
from services.jobs.storage.tables import job_access, job_history, jobs
from shared.database import Statement
from shared.database.rows import by_column, given_rows
from shared.database.tables import audit, outbox
from shared.idempotency import RECORDED, records_of
from shared.messaging.outbox import OUTBOX_COLUMNS

_GIVEN_OF_JOB = (
    "id",
    "user_id",
    "username",
    "name",
    "image",
    "command",
    "working_dir",
    "instance_type",
    "gpu_type",
    "gpu_count",
    "duration_seconds",
    "disk_name",
    "disk_id",
    "availability_zone",
    "ebs_volume_id",
    "env_var_names",
    "github_user",
    "status",
    "detail",
    "submit_message_id",
    "created_at",
    "updated_at",
    "traceparent",
)
_GIVEN_OF_ACCESS = (
    "users",
    "jupyter_wanted",
    "jupyter_enabled",
    "jupyter_revision",
    "jupyter_token_sealed",
    "jupyter_requested_at",
    "jupyter_error",
)
GIVEN = frozenset({*_GIVEN_OF_JOB, *_GIVEN_OF_ACCESS})
"""What new jobs differ in; everything else of a job is its default."""
_SEALED = ("request_mac", "env_sealed")
_AUDITED = ("action", "key_prefix", "address")
"""Of an entry of the audit, what a job and its event do not have; given with `audit_` before it."""
_defaults = {
    field.name: field.default
    for field in msgspec.structs.fields(Job)
    if field.name in OWN_FIELDS and field.name not in GIVEN and isinstance(field.default, int)
}
_columns = {
    **{name: jobs.c[name].type for name in (*_GIVEN_OF_JOB, *_SEALED)},
    **{name: job_access.c[name].type for name in _GIVEN_OF_ACCESS},
    **{name: outbox.c[name].type for name in OUTBOX_COLUMNS},
    **{f"audit_{name}": audit.c[name].type for name in _AUDITED},
    **RECORDED,
}
_NEXT_ID = sa.func.nextval(sa.literal_column("'outbox_id_seq'"))
_rows = given_rows("given", _columns)
_given = sa.select(
    *(column for column in _rows.c if column.name != "submit_message_id"),
    sa.func.coalesce(_rows.c.submit_message_id, _NEXT_ID).label("submit_message_id"),
).cte("new_jobs")
_recorded, _is_free = records_of(_given)
_inserted = (
    insert(jobs)
    .from_select(
        [*_GIVEN_OF_JOB, *_SEALED, "due_at", *_defaults],
        sa.select(
            *(_given.c[name] for name in (*_GIVEN_OF_JOB, *_SEALED)),
            _given.c.created_at,
            *(sa.literal_column(str(value)) for value in _defaults.values()),
        ).where(_is_free),
    )
    .on_conflict_do_nothing(index_elements=[jobs.c.id])
    .returning(jobs.c.id, jobs.c.revision, jobs.c.submit_message_id)
    .cte("inserted")
)
# by the message ID: of two that ask for one job id at once, one is inserted
_of_inserted = _given.join(_inserted, _inserted.c.submit_message_id == _given.c.submit_message_id)
_access_inserted = sa.insert(job_access).from_select(
    ["job_id", *_GIVEN_OF_ACCESS],
    sa.select(_given.c.id, *(_given.c[name] for name in _GIVEN_OF_ACCESS)).select_from(_of_inserted),
)
_told = sa.insert(job_history).from_select(
    ["job_id", "revision", "status", "at"],
    sa.select(_given.c.id, _inserted.c.revision, _given.c.status, _given.c.created_at).select_from(_of_inserted),
)
_announced = sa.insert(outbox).from_select(
    ["id", *OUTBOX_COLUMNS],
    sa.select(_given.c.submit_message_id, *(_given.c[name] for name in OUTBOX_COLUMNS)).select_from(_of_inserted),
)
_audited = sa.insert(audit).from_select(
    ["at", "user_id", "username", "object_kind", "object_id", "object_name", "request_id", *_AUDITED],
    sa.select(
        _given.c.created_at,
        _given.c.user_id,
        _given.c.username,
        sa.literal_column("'job'"),
        sa.cast(_given.c.id, sa.Text),
        _given.c.name,
        _given.c.request_id,
        *(_given.c[f"audit_{name}"] for name in _AUDITED),
    )
    .select_from(_of_inserted)
    .where(_given.c.audit_action.is_not(None)),
)
SUBMIT = Statement(
    sa.select(_given.c.turn, _given.c.submit_message_id)
    .select_from(_of_inserted)
    .add_cte(
        _recorded,
        _access_inserted.cte("access"),
        _told.cte("told"),
        _announced.cte("events"),
        _audited.cte("audited"),
    )
)
"""Writes the jobs of `submit_columns`, with all that belongs to them. One without a message ID gets the next one.

Turn, from 1, and message ID of each that was written: a job is not when its id is taken, or its idempotency key.
"""
MESSAGE_IDS = Statement(
    sa.select(_NEXT_ID.label("id")).select_from(sa.func.generate_series(1, bindparam("count", type_=sa.Integer)))
)
"""New message IDs, in rising order."""


def submit_columns(rows: Sequence[dict[str, Any]]) -> dict[str, list[Any]]:
    """Parameters of SUBMIT for rows that have a value for each of its columns."""
    return by_column(rows, _columns)
