"""Keys of a job's users, and the leases under which they and Jupyter are brought into pods."""

import sqlalchemy as sa
from sqlalchemy import bindparam
from sqlalchemy.dialects.postgresql import JSONB, insert

from services.jobs.storage.jobs import JOB_COLUMNS
from services.jobs.storage.tables import TIME, job_users, jobs
from shared.database import Statement

_access_waiting = (
    sa.select(jobs.c.id)
    .where(
        jobs.c.access_due_at <= bindparam("now", type_=TIME),
        sa.or_(jobs.c.access_worked_until.is_(None), jobs.c.access_worked_until < sa.func.clock_timestamp()),
    )
    .order_by(jobs.c.access_due_at)
    .limit(bindparam("limit", type_=sa.BigInteger))
    .with_for_update(skip_locked=True)
    .cte("waiting")
)
_access_lease = sa.func.clock_timestamp() + bindparam("lease", type_=sa.Interval)
CLAIM_ACCESS = Statement(
    sa.update(jobs)
    .where(jobs.c.id.in_(sa.select(_access_waiting.c.id)))
    .values(access_worked_until=_access_lease, access_worked_by=bindparam("worker", type_=sa.Uuid))
    .returning(*JOB_COLUMNS)
)
"""Jobs whose pods lack keys or Jupyter and that nobody works on; the keys' and Jupyter's lease is apart from the pod's,
since starting Jupyter takes long and must not keep a job from expiring."""
_OWN_ACCESS = sa.and_(jobs.c.id == bindparam("job_id"), jobs.c.access_worked_by == bindparam("worker"))
RENEW_ACCESS = Statement(
    sa.update(jobs).where(_OWN_ACCESS).values(access_worked_until=_access_lease).returning(jobs.c.id)
)
"""No row: the lease is lost."""
FINISH_ACCESS = Statement(
    sa.update(jobs)
    .where(_OWN_ACCESS)
    .values(
        access_worked_until=None,
        access_worked_by=None,
        access_due_at=sa.case(
            # a change that came meanwhile wants a look at once, or no more
            (jobs.c.revision == bindparam("known_revision"), bindparam("next_try_at", type_=TIME)),
            else_=jobs.c.access_due_at,
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
