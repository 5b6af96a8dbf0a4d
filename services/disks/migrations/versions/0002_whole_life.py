"""Deletion and purge, restore points, tags to repair, and what is on a disk."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_STATES = "state IN ('creating', 'available', 'failed')"
_STATES_NOW = "state IN ('creating', 'available', 'failed', 'purging', 'purged')"
_SNAPSHOT_STATES = "status IN ('pending', 'completed', 'failed')"
_SNAPSHOT_STATES_NOW = "status IN ('pending', 'completed', 'failed', 'deleting', 'deleted')"


def upgrade() -> None:
    _extend_disks()
    op.add_column("operations", sa.Column("new_name", sa.Text))
    op.add_column("operations", sa.Column("report", JSONB))
    _extend_snapshots()
    op.create_table(
        "contents",
        sa.Column("disk_id", sa.Uuid, sa.ForeignKey("disks.id", ondelete="CASCADE"), primary_key=True),
        sa.Column("job_id", sa.Uuid),
        sa.Column("epoch", sa.BigInteger),
        sa.Column("taken_at", sa.DateTime(timezone=True)),
        sa.Column("listing", JSONB),
        sa.Column("missed_job_id", sa.Uuid),
    )


def downgrade() -> None:
    op.drop_table("contents")
    _shrink_snapshots()
    op.drop_column("operations", "report")
    op.drop_column("operations", "new_name")
    _shrink_disks()


def _extend_disks() -> None:
    op.add_column("disks", sa.Column("name_tag", sa.Text))
    op.add_column("disks", sa.Column("source_snapshot", sa.Uuid))
    op.add_column("disks", sa.Column("purge_at", sa.DateTime(timezone=True)))
    op.execute("UPDATE disks SET name_tag = name WHERE volume_id IS NOT NULL")
    op.drop_constraint("disks_state", "disks")
    op.drop_constraint("disks_volume", "disks")
    op.create_check_constraint("disks_state", "disks", _STATES_NOW)
    op.create_check_constraint("disks_volume", "disks", "(state IN ('creating', 'failed')) = (volume_id IS NULL)")
    op.create_check_constraint("disks_deletion", "disks", "(deleted_at IS NULL) = (purge_at IS NULL)")
    op.create_index("disks_purge_at", "disks", ["purge_at"], postgresql_where=sa.text("state = 'available'"))


def _shrink_disks() -> None:
    op.execute("DELETE FROM disks WHERE state IN ('purging', 'purged')")
    op.drop_index("disks_purge_at", "disks")
    for name in ("disks_deletion", "disks_volume", "disks_state"):
        op.drop_constraint(name, "disks")
    op.create_check_constraint("disks_state", "disks", _STATES)
    op.create_check_constraint("disks_volume", "disks", "(state = 'available') = (volume_id IS NOT NULL)")
    for name in ("purge_at", "source_snapshot", "name_tag"):
        op.drop_column("disks", name)


def _extend_snapshots() -> None:
    # nothing has ever written this table before
    op.add_column("snapshots", sa.Column("job_id", sa.Uuid))
    op.add_column("snapshots", sa.Column("size_gb", sa.Integer, nullable=False))
    op.add_column("snapshots", sa.Column("error", sa.Text))
    op.add_column("snapshots", sa.Column("asked_at", sa.DateTime(timezone=True)))
    op.add_column("snapshots", sa.Column("name_tag", sa.Text))
    op.add_column("snapshots", sa.Column("completed_at", sa.DateTime(timezone=True)))
    op.drop_constraint("snapshots_status", "snapshots")
    op.create_check_constraint("snapshots_status", "snapshots", _SNAPSHOT_STATES_NOW)
    op.drop_index("snapshots_disk_id", "snapshots")
    op.create_index("snapshots_disk_id", "snapshots", ["disk_id", "created_at"])


def _shrink_snapshots() -> None:
    op.execute("DELETE FROM snapshots WHERE status IN ('deleting', 'deleted')")
    op.drop_index("snapshots_disk_id", "snapshots")
    op.create_index("snapshots_disk_id", "snapshots", ["disk_id"])
    op.drop_constraint("snapshots_status", "snapshots")
    op.create_check_constraint("snapshots_status", "snapshots", _SNAPSHOT_STATES)
    for name in ("completed_at", "name_tag", "asked_at", "error", "size_gb", "job_id"):
        op.drop_column("snapshots", name)
