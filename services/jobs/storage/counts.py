"""How many jobs users have."""

from typing import Any

import sqlalchemy as sa
from sqlalchemy import bindparam

from services.jobs.storage.tables import job_counts
from shared.database import Statement
from shared.database.locks import try_lock

STATUSES = bindparam("statuses", type_=sa.ARRAY(sa.Text))


def total_of_user(*, filtered: bool) -> Any:
    """Jobs of a user (`user_id`), all or those of some `statuses`, in the snapshot of the statement that it is in."""
    counted = job_counts.c.user_id == bindparam("user_id", type_=sa.BigInteger)
    if filtered:
        counted = sa.and_(counted, job_counts.c.status == sa.any_(STATUSES))
    total = sa.func.coalesce(sa.func.sum(job_counts.c.jobs), sa.literal_column("0"))
    return sa.select(sa.cast(total, sa.BigInteger)).where(counted).scalar_subquery()


TRY_FOLD_LOCK = try_lock("fold")
_MANY = 32
_crowded = (
    sa.select(job_counts.c.user_id)
    .group_by(job_counts.c.user_id)
    .having(sa.func.count() > sa.literal_column(str(_MANY)))
)
ANY_TO_FOLD = Statement(sa.select(sa.exists(_crowded)))
_folded = (
    sa.delete(job_counts)
    .where(job_counts.c.user_id.in_(_crowded))
    .returning(job_counts.c.user_id, job_counts.c.status, job_counts.c.jobs)
    .cte("folded")
)
FOLD = Statement(
    sa.insert(job_counts).from_select(
        ["user_id", "status", "jobs"],
        sa.select(_folded.c.user_id, _folded.c.status, sa.func.sum(_folded.c.jobs))
        .group_by(_folded.c.user_id, _folded.c.status)
        .having(sa.func.sum(_folded.c.jobs) != sa.literal_column("0")),
    )
)
"""The changes of users who have many become one row a status; what commits meanwhile is not seen, and stays."""
