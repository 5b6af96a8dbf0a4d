"""Pages of the jobs of several users, for operators."""

from functools import cache

import sqlalchemy as sa
from sqlalchemy import bindparam

from services.jobs.storage.counts import STATUSES
from services.jobs.storage.tables import job_counts, jobs
from shared.database import Statement

_USERS = bindparam("user_ids", type_=sa.ARRAY(sa.BigInteger))


@cache
def list_ids(*, of_all: bool, filtered: bool) -> Statement:
    """Ids of a page (`limit`, `offset`), newest first: of all users or of `user_ids`, with a filter by `statuses`.

    PostgreSQL sorts all jobs that are asked for. An index for that would make every submission dearer.
    """
    wanted = [] if of_all else [jobs.c.user_id == sa.any_(_USERS)]
    wanted += [jobs.c.status == sa.any_(STATUSES)] if filtered else []
    return Statement(
        sa.select(jobs.c.id)
        .where(*wanted)
        .order_by(jobs.c.created_at.desc(), jobs.c.id.desc())
        .limit(bindparam("limit", type_=sa.BigInteger))
        .offset(bindparam("offset", type_=sa.BigInteger))
    )


@cache
def count(*, of_all: bool, filtered: bool) -> Statement:
    """How many there are on all pages."""
    wanted = [] if of_all else [job_counts.c.user_id == sa.any_(_USERS)]
    wanted += [job_counts.c.status == sa.any_(STATUSES)] if filtered else []
    total = sa.func.coalesce(sa.func.sum(job_counts.c.jobs), sa.literal_column("0"))
    return Statement(sa.select(sa.cast(total, sa.BigInteger).label("total")).where(*wanted))
