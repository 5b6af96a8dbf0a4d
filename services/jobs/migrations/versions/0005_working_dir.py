import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    op.add_column("jobs", sa.Column("working_dir", sa.Text()))


def downgrade() -> None:
    op.drop_column("jobs", "working_dir")
