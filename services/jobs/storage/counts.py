"""How many jobs users have, and in which spans of time."""

from typing import Any

import sqlalchemy as sa
from sqlalchemy import bindparam

from services.jobs.storage.tables import job_counts
from shared.database import Statement
from shared.database.locks import try_lock

STATUSES = bindparam("statuses", type_=sa.ARRAY(sa.Text))
_USER = "CAST(:user_id AS bigint)"
OF_USER = f"user_id = {_USER}"


def total_of_user(*, filtered: bool) -> Any:
    """Jobs of a user (`user_id`), all or those of some `statuses`, in the snapshot of the statement that it is in."""
    counted = job_counts.c.user_id == bindparam("user_id", type_=sa.BigInteger)
    if filtered:
        counted = sa.and_(counted, job_counts.c.status == sa.any_(STATUSES))
    total = sa.func.coalesce(sa.func.sum(job_counts.c.jobs), sa.literal_column("0"))
    return sa.select(sa.cast(total, sa.BigInteger)).where(counted).scalar_subquery()


def span_of_change(user: str = _USER) -> str:
    """When the span begins in which a `change` of `user`'s counts is; what is before all others begins at no time."""
    return (
        f"coalesce((SELECT max(span.begins_at) FROM job_spans AS span WHERE span.user_id = {user} "
        "AND span.begins_at <= change.created_at), '-infinity')"
    )


TRY_FOLD_LOCK = try_lock("fold")
_MANY = 32
_LONG = 2000
"""A span of more jobs is divided: what a page skips one by one at most."""
_PART = 1000
"""Jobs of the spans that it becomes, about."""
USERS_TO_FOLD = Statement(
    sa.text(
        "SELECT user_id FROM job_counts GROUP BY user_id "
        f"HAVING count(*) > {_MANY} OR bool_or(created_at = '-infinity') LIMIT 100"
    )
)
"""Those whose counts have many rows, or rows that are in no span."""
_is_divided = "EXISTS (SELECT FROM divided WHERE {begins_at} >= divided.begins_at AND {begins_at} < divided.ends_at)"
FOLD = Statement(
    sa.text(f"""
        WITH folded AS (DELETE FROM job_counts WHERE {OF_USER} RETURNING status, created_at, jobs),
        totals AS (
            INSERT INTO job_counts (user_id, status, created_at, jobs)
            SELECT {_USER}, status, NULL, sum(jobs) FROM folded GROUP BY status HAVING sum(jobs) <> 0
        ),
        changes AS (
            SELECT {span_of_change()} AS begins_at, status, jobs FROM folded AS change WHERE created_at > '-infinity'
        ),
        spans AS (
            SELECT begins_at, coalesce(lead(begins_at) OVER (ORDER BY begins_at), 'infinity') AS ends_at,
                sum(jobs) AS jobs
            FROM (SELECT begins_at, jobs FROM job_spans WHERE {OF_USER}
                  UNION ALL SELECT begins_at, jobs FROM changes) AS known
            GROUP BY begins_at
        ),
        unknown AS (SELECT FROM folded WHERE created_at = '-infinity' LIMIT 1),
        divided AS (
            SELECT CAST('-infinity' AS timestamptz) AS begins_at, CAST('infinity' AS timestamptz) AS ends_at
            FROM unknown
            UNION ALL
            SELECT begins_at, ends_at FROM spans CROSS JOIN LATERAL (
                SELECT min(created_at) AS first, max(created_at) AS last FROM jobs
                WHERE {OF_USER} AND created_at >= begins_at AND created_at < ends_at
            ) AS held
            WHERE spans.jobs > :long AND NOT EXISTS (SELECT FROM unknown)
            AND date_trunc('second', first) < date_trunc('second', last)
        ),
        taken AS (
            DELETE FROM job_spans AS span WHERE {OF_USER} AND ({_is_divided.format(begins_at="span.begins_at")}
                OR EXISTS (SELECT FROM changes WHERE changes.begins_at = span.begins_at))
            RETURNING begins_at, status, jobs
        ),
        kept AS (
            SELECT begins_at, status, sum(jobs) AS jobs
            FROM (SELECT * FROM taken UNION ALL SELECT * FROM changes) AS one
            WHERE NOT {_is_divided.format(begins_at="one.begins_at")}
            GROUP BY begins_at, status HAVING sum(jobs) <> 0
        ),
        reached AS (
            SELECT part_of, part_until, date_trunc('second', created_at) AS second, count(*) AS times
            FROM (
                SELECT divided.begins_at AS part_of, divided.ends_at AS part_until, held.* FROM divided
                CROSS JOIN LATERAL (
                    SELECT created_at, row_number() OVER (ORDER BY created_at) AS number FROM jobs
                    WHERE {OF_USER} AND created_at >= divided.begins_at AND created_at < divided.ends_at
                ) AS held
            ) AS numbered
            WHERE number % CAST(:part AS bigint) = 0 GROUP BY 1, 2, 3
        ),
        begins AS (
            SELECT begins_at AS part_of, ends_at AS part_until, begins_at FROM divided
            UNION SELECT part_of, part_until, second FROM reached
            UNION SELECT part_of, part_until, second + interval '1 second' FROM reached WHERE times > 1
        ),
        parts AS (
            SELECT begins_at, lead(begins_at, 1, part_until) OVER (PARTITION BY part_of ORDER BY begins_at) AS ends_at
            FROM begins
        )
        INSERT INTO job_spans (user_id, begins_at, status, jobs)
        SELECT {_USER}, begins_at, status, jobs FROM kept
        UNION ALL
        SELECT {_USER}, parts.begins_at, held.status, held.jobs
        FROM parts CROSS JOIN LATERAL (
            SELECT status, count(*) AS jobs FROM jobs
            WHERE {OF_USER} AND created_at >= parts.begins_at AND created_at < parts.ends_at GROUP BY status
        ) AS held
    """).bindparams(bindparam("long", _LONG, type_=sa.BigInteger), bindparam("part", _PART, type_=sa.BigInteger))
)
"""A user's changes become one row a status, and are added to spans; what commits meanwhile is not seen, and stays.

Spans that have become long are counted again, in parts: one begins in the second of each `part`-th job, and one after
a second that has more of them, since a second is in one span, however many jobs it has. All spans are counted again
when a change says no second. All is of one snapshot, in which the changes are those of the jobs that are counted.
"""
