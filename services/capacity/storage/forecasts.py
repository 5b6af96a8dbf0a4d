"""Statements on how long jobs ran, and on how well the estimates held."""

import sqlalchemy as sa
from sqlalchemy import bindparam

from services.capacity.storage.tables import runs
from shared.database import Statement
from shared.database.purge import delete_some

RECORD_RUNS = Statement(
    sa.text(
        "INSERT INTO runs (job_id, user_id, username, gpu_type, gpu_count, requested_seconds, prepared_seconds, "
        "ran_seconds, ended_at) SELECT job_id, user_id, username, gpu_type, gpu_count, duration_seconds, "
        "greatest(0, extract(epoch FROM started_at - granted_at)), "
        "greatest(0, extract(epoch FROM ended_at - started_at)), ended_at FROM places "
        "WHERE job_id = ANY(CAST(:job_ids AS uuid[])) AND started_at IS NOT NULL AND granted_at IS NOT NULL "
        "AND ended_at IS NOT NULL AND duration_seconds > 0 ON CONFLICT DO NOTHING"
    )
)
PURGE_RUNS = delete_some(runs, runs.c.ended_at < bindparam("before"))

MOST_RUNS = 2000
SHARES = Statement(
    sa.text(
        "SELECT ran_seconds / requested_seconds AS share, prepared_seconds AS preparation FROM runs "
        "ORDER BY ended_at DESC LIMIT CAST(:most AS integer)"
    )
)
CORRECTIONS = Statement(
    sa.text("SELECT DISTINCT ON (gpu_type) gpu_type, factor FROM calibrations ORDER BY gpu_type, day DESC")
)
RECORD_CALIBRATION = Statement(
    sa.text(
        "INSERT INTO calibrations AS known (gpu_type, day, starts, in_time, factor) "
        "VALUES (:gpu_type, CAST(:day AS date), :starts, :in_time, :factor) "
        "ON CONFLICT (gpu_type, day) DO UPDATE SET starts = known.starts + excluded.starts, "
        "in_time = known.in_time + excluded.in_time, factor = excluded.factor"
    ).bindparams(
        bindparam("starts", type_=sa.BigInteger),
        bindparam("in_time", type_=sa.BigInteger),
        bindparam("factor", type_=sa.Float),
        bindparam("gpu_type", type_=sa.Text),
    )
)
