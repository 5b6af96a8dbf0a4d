"""Disks, their operations, claims and snapshots."""

from datetime import datetime
from uuid import UUID

import sqlalchemy as sa
from alembic import op

from shared.database.tables import create_shared_tables_0001, drop_shared_tables_0001

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    create_shared_tables_0001(op)
    _create_disks()
    _create_operations()
    _create_claims()
    _create_snapshots()


def downgrade() -> None:
    for name in ("snapshots", "claims", "operations", "disks"):
        op.drop_table(name)
    drop_shared_tables_0001(op)


def _moment(name: str, *, nullable: bool = False) -> sa.Column[datetime]:
    return sa.Column(name, sa.DateTime(timezone=True), nullable=nullable)


def _disk_id() -> sa.Column[UUID]:
    return sa.Column("disk_id", sa.Uuid, sa.ForeignKey("disks.id", ondelete="CASCADE"), nullable=False)


def _create_disks() -> None:
    op.create_table(
        "disks",
        sa.Column("id", sa.Uuid, primary_key=True),
        sa.Column("user_id", sa.BigInteger, nullable=False),
        sa.Column("username", sa.Text, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("size_gb", sa.Integer, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("version", sa.BigInteger, nullable=False),
        sa.Column("availability_zone", sa.Text, nullable=False),
        sa.Column("volume_id", sa.Text),
        _moment("created_at"),
        _moment("updated_at"),
        _moment("last_used", nullable=True),
        _moment("deleted_at", nullable=True),
        sa.Column("delete_date", sa.Date),
        sa.UniqueConstraint("volume_id", name="disks_volume_id"),
        sa.CheckConstraint("state IN ('creating', 'available', 'failed')", name="disks_state"),
        sa.CheckConstraint("(state = 'available') = (volume_id IS NOT NULL)", name="disks_volume"),
    )
    named = sa.text("deleted_at IS NULL AND state <> 'failed'")
    op.create_index("disks_name", "disks", ["user_id", "name"], unique=True, postgresql_where=named)
    op.create_index("disks_listed", "disks", ["user_id", "created_at", "id"])


def _create_operations() -> None:
    op.create_table(
        "operations",
        sa.Column("id", sa.Uuid, primary_key=True),
        _disk_id(),
        sa.Column("disk_name", sa.Text, nullable=False),
        sa.Column("action", sa.Text, nullable=False),
        sa.Column("job_id", sa.Uuid),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("error", sa.Text),
        _moment("created_at"),
        _moment("updated_at"),
        _moment("worked_until"),
        sa.Column("lease", sa.BigInteger, nullable=False, server_default="0"),
        sa.Column("failures", sa.Integer, nullable=False, server_default="0"),
        sa.CheckConstraint("status IN ('queued', 'running', 'completed', 'failed')", name="operations_status"),
    )
    still_open = sa.text("status IN ('queued', 'running')")
    op.create_index("operations_disk_id", "operations", ["disk_id"])
    op.create_index("operations_open", "operations", ["worked_until"], postgresql_where=still_open)
    op.create_index("operations_updated_at", "operations", ["updated_at"])


def _create_claims() -> None:
    op.create_table(
        "claims",
        sa.Column("job_id", sa.Uuid, primary_key=True),
        _disk_id(),
        sa.Column("user_id", sa.BigInteger, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        _moment("expires_at"),
        _moment("announced_at", nullable=True),
        _moment("created_at"),
        _moment("updated_at"),
        sa.CheckConstraint("state IN ('provisional', 'confirmed', 'dropped', 'released')", name="claims_state"),
    )
    holding = sa.text("state IN ('provisional', 'confirmed')")
    provisional = sa.text("state = 'provisional'")
    op.create_index("claims_disk", "claims", ["disk_id"], unique=True, postgresql_where=holding)
    op.create_index("claims_expiring", "claims", ["expires_at"], postgresql_where=provisional)
    op.create_index("claims_updated_at", "claims", ["updated_at"])


def _create_snapshots() -> None:
    op.create_table(
        "snapshots",
        sa.Column("id", sa.Uuid, primary_key=True),
        _disk_id(),
        sa.Column("snapshot_id", sa.Text),
        sa.Column("status", sa.Text, nullable=False),
        _moment("created_at"),
        _moment("updated_at"),
        sa.UniqueConstraint("snapshot_id", name="snapshots_snapshot_id"),
        sa.CheckConstraint("status IN ('pending', 'completed', 'failed')", name="snapshots_status"),
    )
    op.create_index("snapshots_disk_id", "snapshots", ["disk_id"])
