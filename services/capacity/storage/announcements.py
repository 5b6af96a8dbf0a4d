"""Statements on what was last announced of jobs and of GPU types."""

import sqlalchemy as sa
from sqlalchemy import bindparam
from sqlalchemy.dialects.postgresql import insert

from services.capacity.storage.queue import IN_QUEUE, ORDER
from services.capacity.storage.tables import announcements
from shared.database import Statement
from shared.database.locks import try_lock

TRY_ANNOUNCER_LOCK = try_lock("tell")

# a time that moved by less than a twentieth of the wait, or by less than ten seconds, is not announced again
_MOVED = (
    "abs(extract(epoch FROM {old} - {new})) > greatest(10, 0.05 * extract(epoch FROM {new} - :now)) "
    "OR ({old} IS NULL) <> ({new} IS NULL)"
)
ANNOUNCE_QUEUE = Statement(
    sa.text(
        "WITH queue AS (SELECT *, row_number() OVER (PARTITION BY gpu_type ORDER BY "
        f"{ORDER}) AS turn FROM places WHERE {IN_QUEUE}), "
        "news AS (SELECT queue.job_id, queue.turn, told.p50, told.p90, coalesce(told.reason, :behind) AS why "
        "FROM queue LEFT JOIN unnest(CAST(:job_ids AS uuid[]), CAST(:p50s AS timestamptz[]), "
        "CAST(:p90s AS timestamptz[]), CAST(:reasons AS text[])) AS told(job_id, p50, p90, reason) "
        "ON told.job_id = queue.job_id WHERE ready AND (queue.told_at IS NULL OR queue.told_at <= "
        "CAST(:now AS timestamptz) - make_interval(secs => CAST(:pause AS float) * "
        "greatest(1, queue.turn / CAST(:near AS float)))) AND (queue.position IS DISTINCT FROM queue.turn "
        "OR queue.reason IS DISTINCT FROM coalesce(told.reason, :behind) "
        f"OR {_MOVED.format(old='queue.estimated_start_at', new='told.p50')} "
        f"OR {_MOVED.format(old='queue.estimated_p90_at', new='told.p90')}) "
        "ORDER BY queue.turn LIMIT CAST(:most AS integer)), "
        "free AS (SELECT entry.job_id FROM places AS entry JOIN news ON news.job_id = entry.job_id "
        f"WHERE {IN_QUEUE} FOR UPDATE OF entry SKIP LOCKED) "
        "UPDATE places AS entry SET position = news.turn, estimated_start_at = news.p50, "
        "estimated_p90_at = news.p90, reason = news.why, told_at = :now, version = version + 1, "
        "first_p90_at = CASE WHEN epoch = 0 THEN coalesce(first_p90_at, news.p90) ELSE first_p90_at END "
        "FROM news JOIN free ON free.job_id = news.job_id WHERE entry.job_id = news.job_id "
        "RETURNING entry.job_id, entry.gpu_type, entry.version, entry.position, entry.estimated_start_at, "
        "entry.estimated_p90_at AS estimated_start_p90_at, entry.reason"
    ).bindparams(bindparam("now", type_=sa.DateTime(timezone=True)), bindparam("behind", type_=sa.Text))
)
ANNOUNCEMENTS = Statement(sa.select(announcements))
SAVE_ANNOUNCEMENT = Statement(
    insert(announcements)
    .values({c.name: bindparam(c.name) for c in announcements.c if c.name != "version"} | {"version": 1})
    .on_conflict_do_update(
        index_elements=[announcements.c.gpu_type],
        set_={c.name: bindparam(c.name) for c in announcements.c if c.name not in {"version", "gpu_type"}}
        | {"version": announcements.c.version + 1},
    )
    .returning(announcements.c.version)
)
