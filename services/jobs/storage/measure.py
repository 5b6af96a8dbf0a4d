"""What waits too long, and how many jobs there are."""

import sqlalchemy as sa
from sqlalchemy import bindparam

from services.jobs.storage.tables import TIME, job_access, job_counts, jobs, webhook_deliveries, webhooks
from services.jobs.storage.webhooks import DUE
from shared.database import Statement

_now = bindparam("now", type_=TIME)
_holds_gpus = sa.and_(jobs.c.node.is_not(None), jobs.c.released_at.is_(None))


def _is_free(worked_until: sa.ColumnElement[object]) -> sa.ColumnElement[bool]:
    return sa.or_(worked_until.is_(None), worked_until < sa.func.clock_timestamp())


_reconciler = (
    sa.select(sa.func.min(jobs.c.due_at))
    .where(_holds_gpus, jobs.c.due_at <= _now, _is_free(jobs.c.worked_until))
    .scalar_subquery()
)
_access = (
    sa.select(sa.func.min(job_access.c.due_at))
    .where(job_access.c.due_at <= _now, _is_free(job_access.c.worked_until))
    .scalar_subquery()
)
_webhooks = (
    sa.select(sa.func.min(webhook_deliveries.c.due_at))
    .select_from(webhook_deliveries.join(webhooks, webhooks.c.id == webhook_deliveries.c.webhook_id))
    # behind one that is tried again later nothing is due
    .where(DUE, _is_free(webhooks.c.worked_until))
    .scalar_subquery()
)
OVERDUE = Statement(
    sa.select(_reconciler.label("reconciler"), _access.label("access_keeper"), _webhooks.label("webhooks"))
)
"""Since when the row is due that has waited longest for each worker; null: none is."""
OVERSTAYING = Statement(sa.select(sa.func.min(jobs.c.expires_at)).where(_holds_gpus, jobs.c.expires_at <= _now))
"""The earliest end of a job that still holds its GPUs; null: none does beyond its end."""
COUNTS = Statement(
    sa.select(job_counts.c.status, sa.cast(sa.func.sum(job_counts.c.jobs), sa.BigInteger).label("jobs")).group_by(
        job_counts.c.status
    )
)
