"""Statements on the windows in which log-ins are counted."""

import sqlalchemy as sa

from services.auth.storage.tables import login_windows
from shared.database import Statement
from shared.database.purge import delete_some

PURGE_LOGIN_WINDOWS = delete_some(login_windows, login_windows.c.started_at < sa.bindparam("before"))
COUNT_LOGIN = Statement(
    sa.text(
        "INSERT INTO login_windows AS known (bucket, started_at, attempts) VALUES (:bucket, :started_at, 1) "
        "ON CONFLICT (bucket) DO UPDATE SET started_at = greatest(known.started_at, excluded.started_at), "
        "attempts = CASE WHEN known.started_at >= excluded.started_at THEN known.attempts + 1 ELSE 1 END "
        "RETURNING attempts"
    ).bindparams(
        sa.bindparam("bucket", type_=sa.LargeBinary), sa.bindparam("started_at", type_=sa.DateTime(timezone=True))
    )
)
"""One more attempt in the bucket's window; the attempts so far."""
