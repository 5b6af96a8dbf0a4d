"""Keys of a job's users, and the leases under which they and Jupyter are brought into pods."""

import sqlalchemy as sa
from sqlalchemy import bindparam
from sqlalchemy.dialects.postgresql import JSONB, insert

from services.jobs.storage.jobs import LOCKED, WITH_ACCESS
from services.jobs.storage.tables import TIME, job_access, job_users, jobs
from shared.database import Statement, among

_waiting = (
    sa.select(job_access.c.job_id)
    .select_from(WITH_ACCESS)
    .where(
        job_access.c.due_at <= bindparam("now", type_=TIME),
        sa.or_(job_access.c.worked_until.is_(None), job_access.c.worked_until < sa.func.clock_timestamp()),
    )
    .order_by(job_access.c.due_at)
    .limit(bindparam("limit", type_=sa.BigInteger))
    .with_for_update(skip_locked=True, of=LOCKED)
    .cte("waiting")
)
_lease_end = sa.func.clock_timestamp() + bindparam("lease", type_=sa.Interval)
CLAIM_ACCESS = Statement(
    sa.update(job_access)
    .where(among(job_access.c.job_id, sa.select(_waiting.c.job_id)))
    .values(worked_until=_lease_end, worked_by=bindparam("worker", type_=sa.Uuid))
    .returning(job_access.c.job_id)
)
"""Ids of jobs whose pods lack keys or Jupyter and that nobody works on; this lease is apart from the job's own, since
starting Jupyter takes long and must not keep a job from expiring."""
# the job's row first, as everywhere: who took them in the other order would wait for each other
_held_job = (
    sa.select(jobs.c.id, jobs.c.revision).where(jobs.c.id == bindparam("job_id")).with_for_update().cte("held_job")
)
_HELD = sa.and_(job_access.c.job_id == _held_job.c.id, job_access.c.worked_by == bindparam("worker"))
RENEW_ACCESS = Statement(
    sa.update(job_access).where(_HELD).values(worked_until=_lease_end).returning(job_access.c.job_id)
)
"""No row: the lease is lost."""
FINISH_ACCESS = Statement(
    sa.update(job_access)
    .where(_HELD)
    .values(
        worked_until=None,
        worked_by=None,
        due_at=sa.case(
            # a change that came meanwhile wants a look at once, or no more
            (_held_job.c.revision == bindparam("known_revision"), bindparam("next_try_at", type_=TIME)),
            else_=job_access.c.due_at,
        ),
    )
)
KEEP_KEYS = Statement(
    insert(job_users)
    .values({c.name: bindparam(c.name, type_=c.type) for c in job_users.c})
    .on_conflict_do_update(
        index_elements=[job_users.c.job_id, job_users.c.name],
        set_={"keys": bindparam("keys", type_=JSONB), "fetched_at": bindparam("fetched_at", type_=TIME)},
    )
)
KEYS = Statement(
    sa.select(job_users.c.name, job_users.c["keys"])
    .where(job_users.c.job_id == bindparam("job_id"))
    .order_by(job_users.c.name)
)
