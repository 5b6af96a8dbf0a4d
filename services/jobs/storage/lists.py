"""Pages of the jobs of several users, for operators."""

from functools import cache

import sqlalchemy as sa
from sqlalchemy import bindparam

from services.jobs.storage.counts import STATUSES, span_of_change
from services.jobs.storage.tables import job_counts
from shared.database import Statement

_USERS = bindparam("user_ids", type_=sa.ARRAY(sa.BigInteger))


@cache
def list_ids(*, of_all: bool, filtered: bool) -> Statement:
    """Ids of a page (`limit`, `offset`), newest first: of all users or of `user_ids`, with a filter by `statuses`.

    Each user's newest jobs are read, in the index, from a time on from which there are enough of all for the page.
    """
    whose = "" if of_all else "AND user_id = ANY(CAST(:user_ids AS bigint[]))"
    wanted = "AND status = ANY(CAST(:statuses AS text[]))" if filtered else ""
    return Statement(
        sa.text(f"""
            WITH known AS (
                SELECT user_id, coalesce(bool_or(created_at = '-infinity'), false) AS is_uncounted
                FROM job_counts WHERE true {whose} GROUP BY user_id
            ),
            counted AS (
                -- a span is counted as its begin: later than that are at least as many
                SELECT since, sum(sum(jobs)) OVER (ORDER BY since DESC) AS jobs
                FROM (
                    SELECT begins_at AS since, user_id, jobs FROM job_spans WHERE true {whose} {wanted}
                    UNION ALL
                    SELECT {span_of_change("change.user_id")}, user_id, jobs
                    FROM job_counts AS change WHERE created_at > '-infinity' {whose} {wanted}
                ) AS part
                JOIN known USING (user_id) WHERE NOT is_uncounted GROUP BY since
            ),
            start AS (
                SELECT coalesce(max(since), '-infinity') AS since FROM counted
                WHERE jobs >= CAST(:limit AS bigint) + CAST(:offset AS bigint)
            )
            SELECT job.id FROM known CROSS JOIN LATERAL (
                SELECT id, created_at FROM jobs
                WHERE user_id = known.user_id AND created_at >= (SELECT since FROM start) {wanted}
                ORDER BY created_at DESC, id DESC LIMIT CAST(:limit AS bigint) + CAST(:offset AS bigint)
            ) AS job
            ORDER BY job.created_at DESC, job.id DESC LIMIT CAST(:limit AS bigint) OFFSET CAST(:offset AS bigint)
        """)
    )


@cache
def count(*, of_all: bool, filtered: bool) -> Statement:
    """How many there are on all pages."""
    wanted = [] if of_all else [job_counts.c.user_id == sa.any_(_USERS)]
    wanted += [job_counts.c.status == sa.any_(STATUSES)] if filtered else []
    total = sa.func.coalesce(sa.func.sum(job_counts.c.jobs), sa.literal_column("0"))
    return Statement(sa.select(sa.cast(total, sa.BigInteger).label("total")).where(*wanted))
