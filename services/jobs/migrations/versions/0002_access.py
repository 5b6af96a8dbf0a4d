from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0002"
down_revision = "0001"


def _added() -> list[sa.Column[Any]]:
    time = sa.DateTime(timezone=True)
    return [
        sa.Column("users", postgresql.JSONB(), nullable=False, server_default="[]"),
        sa.Column("jupyter_wanted", sa.Boolean(), nullable=False, server_default="false"),
        sa.Column("jupyter_revision", sa.BigInteger(), nullable=False, server_default="0"),
        sa.Column("jupyter_applied", sa.BigInteger(), nullable=False, server_default="0"),
        sa.Column("jupyter_requested_at", time, nullable=True),
        sa.Column("jupyter_message_id", sa.BigInteger(), nullable=True),
        sa.Column("jupyter_error", sa.Text(), nullable=True),
        sa.Column("access_due_at", time, nullable=True),
        sa.Column("access_worked_until", time, nullable=True),
        sa.Column("access_worked_by", sa.Uuid(), nullable=True),
    ]


def upgrade() -> None:
    for column in _added():
        op.add_column("jobs", column)
    op.drop_column("jobs", "jupyter_url")
    op.drop_column("jobs", "secondary_users")
    op.create_index(
        "jobs_with_access_due", "jobs", ["access_due_at"], unique=False,
        postgresql_where=sa.text("access_due_at IS NOT NULL"),
    )  # fmt: skip
    op.create_table(
        "job_users",
        sa.Column("job_id", sa.Uuid(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("keys", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("fetched_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("job_id", "name"),
    )


def downgrade() -> None:
    op.drop_table("job_users")
    op.drop_index("jobs_with_access_due", "jobs")
    op.add_column(
        "jobs", sa.Column("secondary_users", postgresql.JSONB(), nullable=False, server_default="[]")
    )  # fmt: skip
    op.add_column("jobs", sa.Column("jupyter_url", sa.Text(), nullable=True))
    for column in _added():
        op.drop_column("jobs", column.name)
