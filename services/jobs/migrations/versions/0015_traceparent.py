"""Expand: the traces that events belong to, and jobs."""

import sqlalchemy as sa
from alembic import op

from shared.database.tables import add_traceparent_0002, drop_traceparent_0002

revision = "0015"
down_revision = "0014"


def upgrade() -> None:
    add_traceparent_0002(op)
    op.add_column("jobs", sa.Column("traceparent", sa.Text))


def downgrade() -> None:
    op.drop_column("jobs", "traceparent")
    drop_traceparent_0002(op)
