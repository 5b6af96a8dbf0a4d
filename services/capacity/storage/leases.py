"""Statements of the placer."""

import sqlalchemy as sa
from sqlalchemy import bindparam, func

from services.capacity.storage.queue import IN_LINE, ORDER, WAITING_COLUMNS
from services.capacity.storage.tables import (
    places,
)
from shared.database import Statement
from shared.database.locks import try_lock

TRY_PLACER_LOCK = try_lock("plac")
TRY_TELLER_LOCK = try_lock("tell")

# of each type only the beginning of its line is read: what a round costs does not grow with the line
LINE = Statement(
    sa.text(
        f"SELECT job.* FROM unnest(CAST(:gpu_types AS text[])) AS type(name) CROSS JOIN LATERAL ("
        f"SELECT {WAITING_COLUMNS} FROM places WHERE gpu_type = type.name AND {IN_LINE} AND ready "
        f"AND user_id <> ALL(CAST(:full_users AS bigint[])) ORDER BY {ORDER} LIMIT CAST(:depth AS integer)) AS job"
    )
)
LEASED = Statement(
    sa.select(
        places.c.job_id,
        places.c.node,
        places.c.gpu_count,
        places.c.user_id,
        func.make_interval(0, 0, 0, 0, 0, 0, places.c.duration_seconds).label("duration"),
        places.c.granted_at,
        places.c.started_at,
        places.c.expires_at,
        places.c.cancelling,
        places.c.status,
    ).where(places.c.state == "leased")
)
# a place that a consumer is changing is passed over: it is looked at again in the next round
GRANT = Statement(
    sa.text(
        "WITH wanted AS (SELECT * FROM unnest(CAST(:job_ids AS uuid[]), CAST(:nodes AS text[])) "
        "WITH ORDINALITY AS one(job_id, node, turn)), "
        "free AS (SELECT place.job_id FROM places AS place JOIN wanted ON wanted.job_id = place.job_id "
        f"WHERE {IN_LINE} AND ready FOR UPDATE OF place SKIP LOCKED), "
        "granted AS (UPDATE places AS place SET state = 'leased', epoch = epoch + 1, version = version + 1, "
        "node = wanted.node, granted_at = :now, started_at = NULL, expires_at = NULL, position = NULL, "
        "estimated_start_at = NULL, estimated_p90_at = NULL, reason = NULL, told_at = NULL "
        "FROM wanted JOIN free ON free.job_id = wanted.job_id WHERE place.job_id = wanted.job_id "
        "RETURNING place.job_id, place.epoch, place.version, place.node, place.gpu_count, place.gpu_type, "
        "place.first_p90_at, wanted.turn), "
        "leased AS (INSERT INTO leases (node, gpu_index, job_id, epoch, granted_at) "
        "SELECT granted.node, gpu.index, granted.job_id, granted.epoch, :now FROM granted "
        "JOIN unnest(CAST(:lease_jobs AS uuid[]), CAST(:lease_indexes AS integer[])) AS gpu(job_id, index) "
        "ON gpu.job_id = granted.job_id) "
        "SELECT * FROM granted ORDER BY turn"
    ).bindparams(bindparam("now", type_=sa.DateTime(timezone=True)))
)
