import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    op.add_column("jobs", sa.Column("pod_ends_at", sa.DateTime(timezone=True)))
    op.add_column("jobs", sa.Column("restarts", sa.Integer(), nullable=False, server_default="0"))


def downgrade() -> None:
    op.drop_column("jobs", "restarts")
    op.drop_column("jobs", "pod_ends_at")
