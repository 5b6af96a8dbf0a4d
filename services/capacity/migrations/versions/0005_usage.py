"""Whose runs they were, and with how many GPUs; entries know their user's name."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("places", sa.Column("username", sa.Text))
    op.add_column("runs", sa.Column("user_id", sa.BigInteger))
    op.add_column("runs", sa.Column("username", sa.Text))
    op.add_column("runs", sa.Column("gpu_count", sa.Integer))
    op.execute(
        "UPDATE runs SET user_id = places.user_id, gpu_count = places.gpu_count FROM places "
        "WHERE places.job_id = runs.job_id"
    )


def downgrade() -> None:
    for name in ("gpu_count", "username", "user_id"):
        op.drop_column("runs", name)
    op.drop_column("places", "username")
