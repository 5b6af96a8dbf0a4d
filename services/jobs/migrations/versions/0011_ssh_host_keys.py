"""Expand: the host keys of a job's SSH server, which are read from its pod.

Of jobs that run already they are read at once; replicas of the release before find nothing to do there.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0011"
down_revision = "0010"


def upgrade() -> None:
    op.add_column("job_access", sa.Column("ssh_host_keys", postgresql.JSONB()))
    op.execute("""
        UPDATE job_access SET due_at = coalesce(job_access.due_at, now()) FROM jobs
        WHERE jobs.id = job_access.job_id AND jobs.status = 'active' AND jobs.released_at IS NULL
    """)


def downgrade() -> None:
    op.drop_column("job_access", "ssh_host_keys")
