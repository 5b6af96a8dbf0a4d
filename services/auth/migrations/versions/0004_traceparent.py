"""Expand: the trace that an event belongs to."""

from alembic import op

from shared.database.tables import add_traceparent_0002, drop_traceparent_0002

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    add_traceparent_0002(op)


def downgrade() -> None:
    drop_traceparent_0002(op)
