"""Whose jobs are whose."""

import sqlalchemy as sa
from sqlalchemy import bindparam
from sqlalchemy.dialects.postgresql import ARRAY

from services.jobs.storage.tables import jobs
from shared.database import Statement

OWNERS = Statement(
    sa.select(jobs.c.id, jobs.c.user_id).where(jobs.c.id == sa.any_(bindparam("job_ids", type_=ARRAY(sa.Uuid))))
)
USERS_OF_NAME = Statement(
    sa.text(
        "SELECT user_id FROM (SELECT DISTINCT user_id FROM job_counts) AS known WHERE CAST(:username AS text) = "
        "(SELECT username FROM jobs WHERE jobs.user_id = known.user_id ORDER BY created_at DESC, id DESC LIMIT 1)"
    )
)
"""Ids of the users of this name who have had a job: one, unless the name is used in several AWS accounts.

A user has one name for ever, so one of their jobs tells it.
"""
