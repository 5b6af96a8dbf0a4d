"""Expand: the trace that an operation belongs to."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("operations", sa.Column("traceparent", sa.Text))


def downgrade() -> None:
    op.drop_column("operations", "traceparent")
