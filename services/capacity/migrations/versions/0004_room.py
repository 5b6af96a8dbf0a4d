"""CPU and memory, in GPUs' worth, of nodes and of pods."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    for table in ("nodes", "gpu_pods"):
        for name in ("cpu_worth", "memory_worth"):
            op.add_column(table, sa.Column(name, sa.Float))


def downgrade() -> None:
    for table in ("nodes", "gpu_pods"):
        for name in ("memory_worth", "cpu_worth"):
            op.drop_column(table, name)
