"""The tables of the disks service."""

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB

metadata = sa.MetaData()

disks = sa.Table(
    "disks",
    metadata,
    sa.Column("id", sa.Uuid, primary_key=True),
    sa.Column("user_id", sa.BigInteger, nullable=False),
    sa.Column("username", sa.Text, nullable=False),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("size_gb", sa.Integer, nullable=False),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("version", sa.BigInteger, nullable=False),
    sa.Column("availability_zone", sa.Text, nullable=False),
    sa.Column("volume_id", sa.Text),
    # the Name tag of the volume, as last written; repaired when it is not the disk's name
    sa.Column("name_tag", sa.Text),
    # snapshot that the volume is made from
    sa.Column("source_snapshot", sa.Uuid),
    sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
    sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
    sa.Column("last_used", sa.DateTime(timezone=True)),
    sa.Column("deleted_at", sa.DateTime(timezone=True)),
    sa.Column("delete_date", sa.Date),
    sa.Column("purge_at", sa.DateTime(timezone=True)),
    sa.UniqueConstraint("volume_id", name="disks_volume_id"),
    # the rule itself: a name is taken by one disk that is neither deleted nor failed
    sa.Index(
        "disks_name",
        "user_id",
        "name",
        unique=True,
        postgresql_where=sa.text("deleted_at IS NULL AND state <> 'failed'"),
    ),
    sa.Index("disks_listed", "user_id", "created_at", "id"),
    sa.Index("disks_purge_at", "purge_at", postgresql_where=sa.text("state = 'available'")),
    sa.CheckConstraint("state IN ('creating', 'available', 'failed', 'purging', 'purged')", name="disks_state"),
    sa.CheckConstraint("(state IN ('creating', 'failed')) = (volume_id IS NULL)", name="disks_volume"),
    sa.CheckConstraint("(deleted_at IS NULL) = (purge_at IS NULL)", name="disks_deletion"),
)

operations = sa.Table(
    "operations",
    metadata,
    sa.Column("id", sa.Uuid, primary_key=True),
    sa.Column("disk_id", sa.Uuid, sa.ForeignKey("disks.id", ondelete="CASCADE"), nullable=False),
    sa.Column("disk_name", sa.Text, nullable=False),
    # of a rename; NULL for the rest
    sa.Column("new_name", sa.Text),
    sa.Column("action", sa.Text, nullable=False),
    # what a rename answered, for repetitions of the request
    sa.Column("report", JSONB),
    # the job whose claim made the disk; NULL when a user asked for it
    sa.Column("job_id", sa.Uuid),
    sa.Column("status", sa.Text, nullable=False),
    sa.Column("error", sa.Text),
    sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
    sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
    # the lease: nobody else works it before this moment; also the end of a rest between attempts
    sa.Column("worked_until", sa.DateTime(timezone=True), nullable=False),
    # rises with each lease: what an earlier holder brings back is refused
    sa.Column("lease", sa.BigInteger, nullable=False, server_default="0"),
    sa.Column("failures", sa.Integer, nullable=False, server_default="0"),
    # W3C Trace Context of what asked for it; NULL when nobody traces it
    sa.Column("traceparent", sa.Text),
    sa.Index("operations_disk_id", "disk_id"),
    sa.Index("operations_open", "worked_until", postgresql_where=sa.text("status IN ('queued', 'running')")),
    sa.Index("operations_updated_at", "updated_at"),
    sa.CheckConstraint("status IN ('queued', 'running', 'completed', 'failed')", name="operations_status"),
)

claims = sa.Table(
    "claims",
    metadata,
    # one disk per job
    sa.Column("job_id", sa.Uuid, primary_key=True),
    sa.Column("disk_id", sa.Uuid, sa.ForeignKey("disks.id", ondelete="CASCADE"), nullable=False),
    sa.Column("user_id", sa.BigInteger, nullable=False),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
    sa.Column("announced_at", sa.DateTime(timezone=True)),
    sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
    sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
    # the rule itself: one job per disk
    sa.Index("claims_disk", "disk_id", unique=True, postgresql_where=sa.text("state IN ('provisional', 'confirmed')")),
    sa.Index("claims_expiring", "expires_at", postgresql_where=sa.text("state = 'provisional'")),
    sa.Index("claims_updated_at", "updated_at"),
    sa.CheckConstraint("state IN ('provisional', 'confirmed', 'dropped', 'released')", name="claims_state"),
)

snapshots = sa.Table(
    "snapshots",
    metadata,
    # our id: the operation that takes it, and the tag on the snapshot
    sa.Column("id", sa.Uuid, primary_key=True),
    sa.Column("disk_id", sa.Uuid, sa.ForeignKey("disks.id", ondelete="CASCADE"), nullable=False),
    sa.Column("snapshot_id", sa.Text),
    # the job that had used the disk; NULL when its owner asked
    sa.Column("job_id", sa.Uuid),
    sa.Column("size_gb", sa.Integer, nullable=False),
    sa.Column("status", sa.Text, nullable=False),
    sa.Column("error", sa.Text),
    # when AWS was last asked to make it, without an answer that says what came of it
    sa.Column("asked_at", sa.DateTime(timezone=True)),
    sa.Column("name_tag", sa.Text),
    sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
    sa.Column("completed_at", sa.DateTime(timezone=True)),
    sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
    sa.UniqueConstraint("snapshot_id", name="snapshots_snapshot_id"),
    sa.Index("snapshots_disk_id", "disk_id", "created_at"),
    sa.CheckConstraint("status IN ('pending', 'completed', 'failed', 'deleting', 'deleted')", name="snapshots_status"),
)

contents = sa.Table(
    "contents",
    metadata,
    sa.Column("disk_id", sa.Uuid, sa.ForeignKey("disks.id", ondelete="CASCADE"), primary_key=True),
    # the job after which the listing was taken; NULL when none ever was
    sa.Column("job_id", sa.Uuid),
    sa.Column("epoch", sa.BigInteger),
    sa.Column("taken_at", sa.DateTime(timezone=True)),
    sa.Column("listing", JSONB),
    # a later job that ended without a listing
    sa.Column("missed_job_id", sa.Uuid),
)
