"""Jobs that wait in the queue."""

import sqlalchemy as sa
from sqlalchemy import bindparam

from services.jobs.storage.tables import TIME, jobs
from shared.database import Statement, in_states
from shared.database.locks import wait_for_user_lock
from shared.database.tables import outbox

# held until the commit: two submissions of one user at once cannot both be the last that is allowed
LOCK_WAITING = wait_for_user_lock("wait")
_IS_WAITING = in_states(jobs.c.status, ["pending", "queued"])
COUNT_WAITING = Statement(
    sa.select(sa.func.count()).where(
        jobs.c.user_id == bindparam("user_id"),
        _IS_WAITING,
    )
)
WAITING = Statement(
    sa.select(jobs.c.id)
    .where(
        _IS_WAITING,
        jobs.c.id > bindparam("after", type_=sa.Uuid),
        jobs.c.updated_at < bindparam("before", type_=TIME),
    )
    .order_by(jobs.c.id)
    .limit(bindparam("limit", type_=sa.BigInteger))
)
UNSENT = Statement(
    sa.select(outbox.c.entity_id)
    .where(outbox.c.published_at.is_(None), outbox.c.entity_id == sa.any_(bindparam("ids", type_=sa.ARRAY(sa.Text))))
    .distinct()
)
"""Those of the jobs of whom an event has not gone out yet."""
