"""Who did what to what, from where."""

from alembic import op

from shared.database.tables import create_audit_table

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    create_audit_table(op)


def downgrade() -> None:
    op.drop_table("audit")
