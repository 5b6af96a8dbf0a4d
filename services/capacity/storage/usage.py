"""The statement on who used GPUs when."""

import sqlalchemy as sa

from services.capacity.storage.tables import queue_entries, runs
from shared.database import Statement, in_states

_user_id = sa.bindparam("user_id", type_=sa.BigInteger)
_username = sa.bindparam("username", type_=sa.Text)
_begins_at = sa.bindparam("begins_at", type_=sa.DateTime(timezone=True))
_ends_at = sa.bindparam("ends_at", type_=sa.DateTime(timezone=True))
_KEYS = ("user_id", "username", "gpu_type", "gpu_count")
_over = sa.select(
    *(runs.c[name] for name in _KEYS),
    (runs.c.ended_at - sa.func.make_interval(0, 0, 0, 0, 0, 0, runs.c.ran_seconds)).label("started_at"),
    runs.c.ended_at,
).where(runs.c.user_id.is_not(None), runs.c.ended_at > _begins_at)
# an entry ends in the transaction that records its run: in one statement a job is never in both, nor in neither
_running = sa.select(
    *(queue_entries.c[name] for name in _KEYS),
    queue_entries.c.started_at,
    sa.cast(None, sa.DateTime(timezone=True)).label("ended_at"),
).where(
    in_states(queue_entries.c.state, ["leased", "revoked"]),
    queue_entries.c.started_at.is_not(None),
)
_all = _over.union_all(_running).subquery("used")
_name = sa.func.coalesce(
    _all.c.username,
    # of runs that are older than this column
    sa.literal("user ", sa.Text).concat(sa.cast(_all.c.user_id, sa.Text)),
)
RUNS_OF = Statement(
    sa.select(
        _all.c.user_id,
        _name.label("username"),
        _all.c.gpu_type,
        _all.c.gpu_count,
        _all.c.started_at,
        _all.c.ended_at,
    ).where(
        _all.c.started_at < _ends_at,
        sa.or_(_user_id.is_(None), _all.c.user_id == _user_id),
        sa.or_(_username.is_(None), _all.c.username == _username),
    )
)
"""Runs of a period, of one user or of all of a name; None: of everybody."""
