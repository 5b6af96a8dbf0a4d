"""Statements on places: following a job, and what one is told when it asks."""

import sqlalchemy as sa
from sqlalchemy import bindparam
from sqlalchemy.dialects.postgresql import insert

from services.capacity.storage.tables import (
    leases,
    places,
    runs,
)
from shared.database import Statement

WAITING_COLUMNS = (
    "job_id, gpu_type, gpu_count, submitted_at, make_interval(secs => duration_seconds) AS duration, ready, zone, "
    "user_id, priority, avoids"
)
IN_LINE = "state = 'waiting' AND NOT cancelling"
ORDER = "priority DESC, submitted_at, job_id"
PLACE_COLUMNS = (
    "job_id", "state", "user_id", "gpu_type", "gpu_count", "duration_seconds", "submitted_at", "zone", "ready",
    "cancelling", "status", "job_version", "epoch", "node", "expires_at", "ended_at", "started_at", "priority",
    "priority_version", "avoids",
)  # fmt: skip
CREATE_PLACE = Statement(
    insert(places)
    .values(
        job_id=bindparam("job_id"), state="unknown", ready=False, cancelling=False, status="pending",
        job_version=0, epoch=0,
    )
    .on_conflict_do_nothing()
)  # fmt: skip
LOCK_PLACE = Statement(
    sa.select(*(places.c[name] for name in PLACE_COLUMNS))
    .where(places.c.job_id == bindparam("job_id"))
    .with_for_update()
)
SAVE_PLACE = Statement(
    sa.update(places)
    .where(places.c.job_id == bindparam("the_job_id"))
    .values({name: bindparam(name) for name in PLACE_COLUMNS if name != "job_id"})
)
END_LEASE = Statement(
    sa.update(places)
    .where(places.c.job_id == bindparam("the_job_id"))
    .values(
        position=None, estimated_start_at=None, estimated_p90_at=None, reason=None, told_at=None,
        version=places.c.version + 1,
    )
    .returning(places.c.version)
)  # fmt: skip
DELETE_LEASES = Statement(sa.delete(leases).where(leases.c.job_id == bindparam("job_id")))
LOCK_PLACES_ON_NODE = Statement(
    sa.select(*(places.c[name] for name in PLACE_COLUMNS))
    .where(places.c.state == "leased", places.c.node == bindparam("node"))
    .order_by(places.c.job_id)
    .with_for_update()
)
PURGE_PLACES = Statement(sa.delete(places).where(places.c.state == "ended", places.c.ended_at < bindparam("before")))

RECORD_RUN = Statement(
    sa.text(
        "INSERT INTO runs (job_id, gpu_type, requested_seconds, prepared_seconds, ran_seconds, ended_at) "
        "SELECT job_id, gpu_type, duration_seconds, greatest(0, extract(epoch FROM started_at - granted_at)), "
        "greatest(0, extract(epoch FROM ended_at - started_at)), ended_at FROM places "
        "WHERE job_id = :job_id AND started_at IS NOT NULL AND granted_at IS NOT NULL AND ended_at IS NOT NULL "
        "AND duration_seconds > 0 ON CONFLICT DO NOTHING"
    )
)
PURGE_RUNS = Statement(sa.delete(runs).where(runs.c.ended_at < bindparam("before")))

FIND_PLACE = Statement(
    sa.select(*(places.c[name] for name in PLACE_COLUMNS)).where(places.c.job_id == bindparam("job_id"))
)
PLACED = Statement(
    sa.select(places.c.job_id).where(
        places.c.job_id == sa.any_(bindparam("job_ids", type_=sa.ARRAY(sa.Uuid))), places.c.state != "unknown"
    )
)
AHEAD = Statement(
    sa.text(
        f"SELECT count(*) AS jobs, coalesce(sum(gpu_count), 0) AS gpus FROM places WHERE {IN_LINE} "
        "AND gpu_type = :gpu_type AND (-priority, submitted_at, job_id) < "
        "(-CAST(:priority AS integer), CAST(:submitted_at AS timestamptz), CAST(:job_id AS uuid))"
    ).bindparams(bindparam("gpu_type", type_=sa.Text))
)
