"""Statements by which the line, and everybody else, is told what has changed."""

import sqlalchemy as sa
from sqlalchemy import bindparam
from sqlalchemy.dialects.postgresql import insert

from services.capacity.storage.queue import IN_LINE, ORDER, WAITING_COLUMNS
from services.capacity.storage.tables import (
    announcements,
)
from shared.database import Statement

_NOW = bindparam("now", type_=sa.DateTime(timezone=True))

LINE_WITH_UNREADY = Statement(
    sa.text(
        f"SELECT job.* FROM (SELECT DISTINCT gpu_type AS name FROM line_counts) AS type CROSS JOIN LATERAL ("
        f"SELECT {WAITING_COLUMNS} FROM places WHERE gpu_type = type.name AND {IN_LINE} "
        f"ORDER BY {ORDER} LIMIT CAST(:depth AS integer)) AS job"
    )
)
# times that moved by less than a twentieth of the wait, or ten seconds, are no news
_MOVED = (
    "abs(extract(epoch FROM {old} - {new})) > greatest(10, 0.05 * extract(epoch FROM {new} - :now)) "
    "OR ({old} IS NULL) <> ({new} IS NULL)"
)
TELL = Statement(
    sa.text(
        "WITH line AS (SELECT *, row_number() OVER (PARTITION BY gpu_type ORDER BY "
        f"{ORDER}) AS turn FROM places WHERE {IN_LINE}), "
        "news AS (SELECT line.job_id, line.turn, told.p50, told.p90, coalesce(told.reason, :behind) AS why "
        "FROM line LEFT JOIN unnest(CAST(:job_ids AS uuid[]), CAST(:p50s AS timestamptz[]), "
        "CAST(:p90s AS timestamptz[]), CAST(:reasons AS text[])) AS told(job_id, p50, p90, reason) "
        "ON told.job_id = line.job_id WHERE ready AND (line.told_at IS NULL OR line.told_at <= "
        "CAST(:now AS timestamptz) - make_interval(secs => CAST(:quiet AS float) * "
        "greatest(1, line.turn / CAST(:near AS float)))) AND (line.position IS DISTINCT FROM line.turn "
        "OR line.reason IS DISTINCT FROM coalesce(told.reason, :behind) "
        f"OR {_MOVED.format(old='line.estimated_start_at', new='told.p50')} "
        f"OR {_MOVED.format(old='line.estimated_p90_at', new='told.p90')}) "
        "ORDER BY line.turn LIMIT CAST(:most AS integer)), "
        "free AS (SELECT place.job_id FROM places AS place JOIN news ON news.job_id = place.job_id "
        f"WHERE {IN_LINE} FOR UPDATE OF place SKIP LOCKED) "
        "UPDATE places AS place SET position = news.turn, estimated_start_at = news.p50, "
        "estimated_p90_at = news.p90, reason = news.why, told_at = :now, version = version + 1, "
        "first_p90_at = CASE WHEN epoch = 0 THEN coalesce(first_p90_at, news.p90) ELSE first_p90_at END "
        "FROM news JOIN free ON free.job_id = news.job_id WHERE place.job_id = news.job_id "
        "RETURNING place.job_id, place.gpu_type, place.version, place.position, place.estimated_start_at, "
        "place.estimated_p90_at AS estimated_start_p90_at, place.reason"
    ).bindparams(bindparam("now", type_=sa.DateTime(timezone=True)), bindparam("behind", type_=sa.Text))
)
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

ANNOUNCED = Statement(sa.select(announcements))
ANNOUNCE = Statement(
    insert(announcements)
    .values({c.name: bindparam(c.name) for c in announcements.c if c.name != "version"} | {"version": 1})
    .on_conflict_do_update(
        index_elements=[announcements.c.gpu_type],
        set_={c.name: bindparam(c.name) for c in announcements.c if c.name not in {"version", "gpu_type"}}
        | {"version": announcements.c.version + 1},
    )
    .returning(announcements.c.version)
)
