"""Users who are disabled, and the jobs of theirs that end."""

import sqlalchemy as sa
from sqlalchemy import bindparam
from sqlalchemy.dialects.postgresql import insert

from services.jobs.domain.job import OPEN_STATUSES
from services.jobs.storage.jobs import JOB_COLUMNS, LOCKED, WITH_ACCESS
from services.jobs.storage.tables import TIME, disabled_users, jobs
from shared.database import Statement, among, in_states

_noted = insert(disabled_users).values(
    {name: bindparam(name, type_=disabled_users.c[name].type) for name in ("user_id", "sequence", "jobs_end_at")}
)
NOTE_DISABLED = Statement(
    _noted.on_conflict_do_update(
        index_elements=[disabled_users.c.user_id],
        set_={"sequence": _noted.excluded.sequence, "jobs_end_at": _noted.excluded.jobs_end_at},
        where=disabled_users.c.sequence < _noted.excluded.sequence,
    )
)
_open = jobs.alias("open")
# user by user: as a plain join PostgreSQL would read all jobs, or all that are open
_OF_USER = (
    sa.select(_open.c.id)
    .where(
        _open.c.user_id == disabled_users.c.user_id,
        in_states(_open.c.status, sorted(OPEN_STATUSES)),
        _open.c.outcome.is_(None),
    )
    .offset(sa.literal_column("0"))
    .lateral("of_user")
)
_JOBS_OF_DISABLED = (
    sa.select(_OF_USER.c.id)
    .select_from(disabled_users.join(_OF_USER, sa.true()))
    .where(disabled_users.c.jobs_end_at <= bindparam("now", type_=TIME))
)
LOCK_JOBS_OF_DISABLED = Statement(
    sa.select(*JOB_COLUMNS)
    .select_from(WITH_ACCESS)
    .where(
        among(jobs.c.id, _JOBS_OF_DISABLED),
        jobs.c.released_at.is_(None),
        jobs.c.outcome.is_(None),
    )
    .limit(bindparam("limit", type_=sa.BigInteger))
    .with_for_update(skip_locked=True, of=LOCKED)
)
"""Also a job that was submitted while the event was on its way."""
