import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    op.create_index("jobs_waiting", "jobs", ["id"], postgresql_where=sa.text("status IN ('pending', 'queued')"))


def downgrade() -> None:
    op.drop_index("jobs_waiting", "jobs")
