"""Whose jobs are whose."""

import sqlalchemy as sa
from sqlalchemy import bindparam
from sqlalchemy.dialects.postgresql import ARRAY

from services.jobs.storage.tables import jobs
from shared.database import Statement

OWNERS = Statement(
    sa.select(jobs.c.id, jobs.c.user_id).where(jobs.c.id == sa.any_(bindparam("job_ids", type_=ARRAY(sa.Uuid))))
)
USERS_OF_NAME = Statement(sa.select(jobs.c.user_id).distinct().where(jobs.c.username == bindparam("username")))
"""Ids of the users of this name who have had a job: one, unless the name is used in several AWS accounts."""
