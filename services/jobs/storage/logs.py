"""What is kept of logs."""

import sqlalchemy as sa
from sqlalchemy import bindparam
from sqlalchemy.dialects.postgresql import insert

from services.jobs.storage.tables import job_logs
from shared.database import Statement

KEEP_LOG = Statement(
    insert(job_logs)
    .values(job_id=bindparam("job_id"), sealed=bindparam("sealed"), kept_at=bindparam("now"))
    .on_conflict_do_update(
        index_elements=[job_logs.c.job_id], set_={"sealed": bindparam("sealed"), "kept_at": bindparam("now")}
    )
)
KEPT_LOG = Statement(sa.select(job_logs.c.sealed).where(job_logs.c.job_id == bindparam("job_id")))
