"""Statements on leases: who holds GPUs, granting and deleting."""

import sqlalchemy as sa
from sqlalchemy import bindparam, func

from services.capacity.storage.queue import IN_QUEUE, IS_LEASED
from services.capacity.storage.tables import leases, queue_entries
from shared.database import Statement
from shared.database.locks import try_lock

TRY_SCHEDULER_LOCK = try_lock("plac")

LEASED = Statement(
    sa.select(
        queue_entries.c.job_id,
        queue_entries.c.node,
        queue_entries.c.gpu_count,
        queue_entries.c.user_id,
        func.make_interval(0, 0, 0, 0, 0, 0, queue_entries.c.duration_seconds).label("duration"),
        queue_entries.c.granted_at,
        queue_entries.c.started_at,
        queue_entries.c.expires_at,
        queue_entries.c.cancelling,
        queue_entries.c.status,
    ).where(IS_LEASED)
)
HOLDERS = Statement(
    sa.select(leases.c.node, leases.c.gpu_index, leases.c.job_id, queue_entries.c.user_id)
    .select_from(leases.join(queue_entries, queue_entries.c.job_id == leases.c.job_id))
    .order_by(leases.c.node, leases.c.gpu_index)
)
"""Who has the lease on each GPU."""
# an entry that somebody is changing is passed over: the next round, in a moment, looks at it again
GRANT = Statement(
    sa.text(
        "WITH wanted AS (SELECT * FROM unnest(CAST(:job_ids AS uuid[]), CAST(:nodes AS text[])) "
        "WITH ORDINALITY AS one(job_id, node, turn)), "
        "free AS (SELECT entry.job_id FROM places AS entry JOIN wanted ON wanted.job_id = entry.job_id "
        f"WHERE {IN_QUEUE} AND ready FOR UPDATE OF entry SKIP LOCKED), "
        "granted AS (UPDATE places AS entry SET state = 'leased', epoch = epoch + 1, version = version + 1, "
        "node = wanted.node, granted_at = :now, started_at = NULL, expires_at = NULL, position = NULL, "
        "estimated_start_at = NULL, estimated_p90_at = NULL, reason = NULL, told_at = NULL "
        "FROM wanted JOIN free ON free.job_id = wanted.job_id WHERE entry.job_id = wanted.job_id "
        "RETURNING entry.job_id, entry.epoch, entry.version, entry.node, entry.gpu_count, entry.gpu_type, "
        "entry.first_p90_at, entry.submitted_at, entry.traceparent, wanted.turn), "
        "leased AS (INSERT INTO leases (node, gpu_index, job_id, epoch, granted_at) "
        "SELECT granted.node, gpu.index, granted.job_id, granted.epoch, :now FROM granted "
        "JOIN unnest(CAST(:lease_jobs AS uuid[]), CAST(:lease_indexes AS integer[])) AS gpu(job_id, index) "
        "ON gpu.job_id = granted.job_id) "
        "SELECT * FROM granted ORDER BY turn"
    ).bindparams(bindparam("now", type_=sa.DateTime(timezone=True)))
)
DELETE_LEASES = Statement(
    sa.delete(leases).where(leases.c.job_id == sa.any_(bindparam("job_ids", type_=sa.ARRAY(sa.Uuid))))
)
