"""Statements on the queue's entries."""

import sqlalchemy as sa
from sqlalchemy import bindparam
from sqlalchemy.dialects.postgresql import insert

from services.capacity.domain.queue_entry import QueueEntry
from services.capacity.storage.tables import queue_entries
from shared.database import Statement, word
from shared.database.purge import delete_some
from shared.database.rows import given_rows

WAITING_COLUMNS = (
    "job_id, gpu_type, gpu_count, submitted_at, make_interval(secs => duration_seconds) AS duration, ready, zone, "
    "user_id, priority, avoids"
)
IN_QUEUE = "state = 'waiting' AND NOT cancelling"
IS_LEASED = queue_entries.c.state == word("leased")
IS_ENDED = queue_entries.c.state == word("ended")
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
    _entry.where(IS_LEASED, queue_entries.c.node == bindparam("node"))
    .order_by(queue_entries.c.job_id)
    .with_for_update()
)
PURGE_ENTRIES = delete_some(queue_entries, sa.and_(IS_ENDED, queue_entries.c.ended_at < bindparam("before")))

KNOWN_JOBS = Statement(
    sa.select(queue_entries.c.job_id).where(
        queue_entries.c.job_id == sa.any_(bindparam("job_ids", type_=sa.ARRAY(sa.Uuid))),
        queue_entries.c.state != "unknown",
    )
)
_SAME_TYPE = f"SELECT gpu_count FROM places WHERE {IN_QUEUE} AND gpu_type = CAST(:gpu_type AS text) AND priority"
_POSITION = "(CAST(:submitted_at AS timestamptz), CAST(:job_id AS uuid))"
_PRIORITY = "CAST(:priority AS integer)"


def _on_one_side(of_priority: str, of_position: str) -> str:
    """Two ranges of the index, since the highest priority and the earliest time come first."""
    return (
        f"{_SAME_TYPE} {of_priority} {_PRIORITY} UNION ALL "
        f"{_SAME_TYPE} = {_PRIORITY} AND (submitted_at, job_id) {of_position} {_POSITION}"
    )


ANY_WAITING = Statement(sa.text(f"SELECT EXISTS (SELECT FROM places WHERE {IN_QUEUE})"))
AHEAD = Statement(
    sa.text(f"SELECT count(*) AS jobs, coalesce(sum(gpu_count), 0) AS gpus FROM ({_on_one_side('>', '<')}) AS ahead")
)
"""What is before a job in the queue, counted one by one."""
AHEAD_BY_THE_END = Statement(
    sa.text(
        f"SELECT total.jobs - rest.jobs AS jobs, total.gpus - rest.gpus AS gpus FROM "
        "(SELECT CAST(coalesce(sum(jobs), 0) AS bigint) AS jobs, CAST(coalesce(sum(gpus), 0) AS bigint) AS gpus "
        f"FROM line_counts WHERE {IN_QUEUE} AND gpu_type = CAST(:gpu_type AS text)) AS total, "
        "(SELECT count(*) AS jobs, coalesce(sum(gpu_count), 0) AS gpus FROM "
        f"({_on_one_side('<', '>=')} LIMIT CAST(:most AS integer)) AS behind) AS rest "
        "WHERE rest.jobs < CAST(:most AS integer)"
    )
)
"""The same, as all that wait less the job and what is behind it; no row when there are more than `most` of those."""
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
