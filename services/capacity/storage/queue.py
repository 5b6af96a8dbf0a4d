"""Statements on the queue's entries."""

import sqlalchemy as sa
from sqlalchemy import bindparam
from sqlalchemy.dialects.postgresql import insert

from services.capacity.domain.queue_entry import QueueEntry
from services.capacity.storage.tables import queue_entries
from shared.database import Statement
from shared.database.purge import delete_some
from shared.database.rows import given_rows

WAITING_COLUMNS = (
    "job_id, gpu_type, gpu_count, submitted_at, make_interval(secs => duration_seconds) AS duration, ready, zone, "
    "user_id, priority, avoids"
)
IN_QUEUE = "state = 'waiting' AND NOT cancelling"
ORDER = "priority DESC, submitted_at, job_id"
_FIELDS = QueueEntry.__struct_fields__
_entry = sa.select(*(queue_entries.c[name] for name in _FIELDS))
ENTRY_COLUMNS = {name: queue_entries.c[name].type for name in _FIELDS}
_given = given_rows("given", ENTRY_COLUMNS)
_JOBS = sa.any_(bindparam("job_ids", type_=sa.ARRAY(sa.Uuid)))

FIND_ENTRY = Statement(_entry.where(queue_entries.c.job_id == bindparam("job_id")))
LOCK_ENTRIES = Statement(
    # in one order, so that two who lock the same entries do not wait for each other
    _entry.where(queue_entries.c.job_id == _JOBS).order_by(queue_entries.c.job_id).with_for_update()
)
INSERT_ENTRIES = Statement(
    insert(queue_entries)
    .from_select(_FIELDS, sa.select(*(_given.c[name] for name in _FIELDS)).order_by(_given.c.job_id))
    .on_conflict_do_nothing()
    .returning(queue_entries.c.job_id)
)
"""Jobs that had no entry yet."""
SAVE_ENTRIES = Statement(
    sa.update(queue_entries)
    .where(queue_entries.c.job_id == _given.c.job_id)
    .values({name: _given.c[name] for name in _FIELDS if name != "job_id"})
)
END_LEASES = Statement(
    sa.update(queue_entries)
    .where(queue_entries.c.job_id == _JOBS)
    .values(
        position=None,
        estimated_start_at=None,
        estimated_p90_at=None,
        reason=None,
        told_at=None,
        version=queue_entries.c.version + 1,
    )
    .returning(queue_entries.c.job_id, queue_entries.c.version)
)
LOCK_ENTRIES_ON_NODE = Statement(
    _entry.where(queue_entries.c.state == "leased", queue_entries.c.node == bindparam("node"))
    .order_by(queue_entries.c.job_id)
    .with_for_update()
)
PURGE_ENTRIES = delete_some(
    queue_entries, sa.and_(queue_entries.c.state == "ended", queue_entries.c.ended_at < bindparam("before"))
)

KNOWN_JOBS = Statement(
    sa.select(queue_entries.c.job_id).where(
        queue_entries.c.job_id == sa.any_(bindparam("job_ids", type_=sa.ARRAY(sa.Uuid))),
        queue_entries.c.state != "unknown",
    )
)
AHEAD = Statement(
    sa.text(
        f"SELECT count(*) AS jobs, coalesce(sum(gpu_count), 0) AS gpus FROM places WHERE {IN_QUEUE} "
        "AND gpu_type = :gpu_type AND (-priority, submitted_at, job_id) < "
        "(-CAST(:priority AS integer), CAST(:submitted_at AS timestamptz), CAST(:job_id AS uuid))"
    ).bindparams(bindparam("gpu_type", type_=sa.Text))
)
# only the beginning of each type's queue is read: the cost of a round does not grow with the queue
QUEUE = Statement(
    sa.text(
        f"SELECT job.* FROM unnest(CAST(:gpu_types AS text[])) AS type(name) CROSS JOIN LATERAL ("
        f"SELECT {WAITING_COLUMNS} FROM places WHERE gpu_type = type.name AND {IN_QUEUE} AND ready "
        f"AND user_id <> ALL(CAST(:full_users AS bigint[])) ORDER BY {ORDER} LIMIT CAST(:depth AS integer)) AS job"
    )
)
SHOWN_QUEUE = Statement(
    sa.text(
        "SELECT type.name AS gpu_type, type.jobs, type.gpus, job.* FROM (SELECT gpu_type AS name, "
        "CAST(sum(jobs) AS bigint) AS jobs, CAST(sum(gpus) AS bigint) AS gpus FROM line_counts "
        f"WHERE {IN_QUEUE} GROUP BY gpu_type HAVING sum(jobs) > 0) AS type CROSS JOIN LATERAL ("
        "SELECT job_id, user_id, gpu_count, duration_seconds, priority, submitted_at, ready, estimated_start_at, "
        f"estimated_p90_at FROM places WHERE gpu_type = type.name AND {IN_QUEUE} "
        f"ORDER BY {ORDER} LIMIT CAST(:depth AS integer)) AS job ORDER BY type.name, {ORDER}"
    )
)
"""The beginning of each type's queue, with what was announced last; and how long the whole is."""
QUEUE_WITH_UNREADY = Statement(
    sa.text(
        f"SELECT job.* FROM (SELECT DISTINCT gpu_type AS name FROM line_counts) AS type CROSS JOIN LATERAL ("
        f"SELECT {WAITING_COLUMNS} FROM places WHERE gpu_type = type.name AND {IN_QUEUE} "
        f"ORDER BY {ORDER} LIMIT CAST(:depth AS integer)) AS job"
    )
)
