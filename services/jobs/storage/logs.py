"""What is kept of logs, and how far."""

import sqlalchemy as sa
from sqlalchemy import bindparam
from sqlalchemy.dialects.postgresql import insert

from services.jobs.storage.tables import TIME, job_logs, jobs
from shared.database import Statement

_THIS = job_logs.c.job_id == bindparam("job_id")
# as the job was when the log was asked for: what a worker had that is none any more is dropped
_seen_job = sa.select(jobs.c.id).where(jobs.c.id == bindparam("job_id"), jobs.c.revision == bindparam("revision"))
_kept = insert(job_logs).from_select(
    ["job_id", "sealed", "kept_at", "final"],
    _seen_job.add_columns(
        bindparam("sealed", type_=sa.LargeBinary), bindparam("now", type_=TIME), bindparam("final", type_=sa.Boolean)
    ),
)
KEEP_LOG = Statement(
    _kept.on_conflict_do_update(
        index_elements=[job_logs.c.job_id],
        set_={
            "sealed": _kept.excluded.sealed,
            "kept_at": _kept.excluded.kept_at,
            "final": sa.or_(job_logs.c.final, _kept.excluded.final),
        },
    )
)
"""No row: the job has changed."""
_missed = insert(job_logs).from_select(["job_id", "tries"], _seen_job.add_columns(sa.literal(1, sa.Integer)))
NOTE_TROUBLE = Statement(
    _missed.on_conflict_do_update(index_elements=[job_logs.c.job_id], set_={"tries": job_logs.c.tries + 1})
)
"""It could not be had once more; no row: the job has changed."""
ADD_LAST_LINES = Statement(
    sa.update(job_logs).where(_THIS).values(sealed=bindparam("sealed"), kept_at=bindparam("now"))
)
"""In place of what was stored before the pod was asked to end."""
KEPT_LOG = Statement(sa.select(job_logs.c.sealed).where(_THIS))
STATE = Statement(
    sa.select(job_logs.c.sealed.is_not(None).label("kept"), job_logs.c.final, job_logs.c.tries).where(_THIS)
)
