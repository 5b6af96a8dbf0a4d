"""The traces that events belong to, and jobs in the queue."""

import sqlalchemy as sa
from alembic import op

from shared.database.tables import add_traceparent_0002, drop_traceparent_0002

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    add_traceparent_0002(op)
    op.add_column("places", sa.Column("traceparent", sa.Text))


def downgrade() -> None:
    op.drop_column("places", "traceparent")
    drop_traceparent_0002(op)
