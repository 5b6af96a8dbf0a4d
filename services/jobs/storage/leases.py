"""Leases of the worker that makes the cluster match the jobs."""

import sqlalchemy as sa
from sqlalchemy import bindparam

from services.jobs.storage.tables import TIME, jobs
from shared.database import Statement, among

_is_hinted = jobs.c.id == sa.any_(bindparam("hinted", type_=sa.ARRAY(sa.Uuid)))
_head_start = sa.literal_column("interval '2 seconds'", sa.Interval)
# what is begun is brought to its end before anything is begun: of many that start at once the first need not wait for
# the last; no longer than for the head start, so that nobody is passed over for ever
_turn = sa.case(
    (
        sa.and_(_is_hinted, jobs.c.pod_uid.is_not(None)),
        sa.func.least(jobs.c.due_at, bindparam("now", type_=TIME) - _head_start),
    ),
    else_=jobs.c.due_at,
)
_waiting = (
    sa.select(jobs.c.id)
    .where(
        jobs.c.node.is_not(None),
        jobs.c.released_at.is_(None),
        sa.or_(
            jobs.c.due_at <= bindparam("now", type_=TIME),
            _is_hinted,
        ),
        # the database's clock: replicas' own may differ
        sa.or_(jobs.c.worked_until.is_(None), jobs.c.worked_until < sa.func.clock_timestamp()),
    )
    .order_by(_turn)
    .limit(bindparam("limit", type_=sa.BigInteger))
    .with_for_update(skip_locked=True)
    .cte("waiting")
)
CLAIM = Statement(
    sa.update(jobs)
    .where(among(jobs.c.id, sa.select(_waiting.c.id)))
    .values(
        worked_until=sa.func.clock_timestamp() + bindparam("lease", type_=sa.Interval),
        worked_by=bindparam("worker", type_=sa.Uuid),
    )
    .returning(jobs.c.id)
)
"""Ids of jobs that are due or hinted at and that nobody works on; they are the worker's until its lease ends."""
RENEW = Statement(
    sa.update(jobs)
    .where(jobs.c.id == bindparam("job_id"), jobs.c.worked_by == bindparam("worker"))
    .values(worked_until=sa.func.clock_timestamp() + bindparam("lease", type_=sa.Interval))
    .returning(jobs.c.id)
)
"""No row: the lease is another's."""
FINISH = Statement(
    sa.update(jobs)
    .where(jobs.c.id == bindparam("job_id"), jobs.c.worked_by == bindparam("worker"))
    .values(
        worked_until=None,
        worked_by=None,
        # a change that came meanwhile wants a look at once
        due_at=sa.case(
            (jobs.c.revision == bindparam("known_revision"), bindparam("next_look_at", type_=TIME)),
            else_=jobs.c.due_at,
        ),
    )
)
LEASES = Statement(
    sa.select(
        jobs.c.id, jobs.c.epoch, sa.and_(jobs.c.node.is_not(None), jobs.c.released_at.is_(None)).label("live")
    ).where(jobs.c.id == sa.any_(bindparam("ids", type_=sa.ARRAY(sa.Uuid))))
)
