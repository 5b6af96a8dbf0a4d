"""Nodes, pods, places and leases."""

import sqlalchemy as sa
from alembic import op

from shared.database.tables import create_shared_tables_0001, drop_shared_tables_0001

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    create_shared_tables_0001(op)
    _create_fleet()
    _create_places()
    op.create_table(
        "leases",
        sa.Column("node", sa.Text, primary_key=True),
        sa.Column("gpu_index", sa.Integer, primary_key=True),
        sa.Column("job_id", sa.Uuid, nullable=False),
        sa.Column("epoch", sa.Integer, nullable=False),
        sa.Column("granted_at", _TIME, nullable=False),
    )
    op.create_index("leases_job_id", "leases", ["job_id"])
    op.create_table(
        "announcements",
        sa.Column("gpu_type", sa.Text, primary_key=True),
        sa.Column("total", sa.Integer, nullable=False),
        sa.Column("available", sa.Integer, nullable=False),
        sa.Column("in_use", sa.Integer, nullable=False),
        sa.Column("queued", sa.Integer, nullable=False),
        sa.Column("version", sa.BigInteger, nullable=False),
        sa.Column("told_at", _TIME, nullable=False),
    )


def downgrade() -> None:
    for name in ("announcements", "leases", "places", "watches", "gpu_pods", "nodes"):
        op.drop_table(name)
    drop_shared_tables_0001(op)


def _create_fleet() -> None:
    op.create_table(
        "nodes",
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("uid", sa.Text, nullable=False),
        sa.Column("resource_version", sa.BigInteger, nullable=False),
        sa.Column("instance_type", sa.Text),
        sa.Column("gpu_type", sa.Text),
        sa.Column("zone", sa.Text),
        sa.Column("gpus", sa.Integer, nullable=False),
        sa.Column("ready", sa.Boolean, nullable=False),
        sa.Column("schedulable", sa.Boolean, nullable=False),
        sa.Column("version", sa.BigInteger, nullable=False),
        sa.Column("seen_at", _TIME, nullable=False),
        sa.Column("gone_at", _TIME),
    )
    op.create_table(
        "gpu_pods",
        sa.Column("uid", sa.Text, primary_key=True),
        sa.Column("resource_version", sa.BigInteger, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("node", sa.Text, nullable=False),
        sa.Column("gpus", sa.Integer, nullable=False),
        sa.Column("job_id", sa.Uuid),
        sa.Column("seen_at", _TIME, nullable=False),
    )
    op.create_index("gpu_pods_node", "gpu_pods", ["node"])
    op.create_table(
        "watches",
        sa.Column("kind", sa.Text, primary_key=True),
        sa.Column("confirmed_at", _TIME, nullable=False),
    )


def _create_places() -> None:
    op.create_table(
        "places",
        sa.Column("job_id", sa.Uuid, primary_key=True),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("user_id", sa.BigInteger),
        sa.Column("gpu_type", sa.Text),
        sa.Column("gpu_count", sa.Integer),
        sa.Column("duration_seconds", sa.Integer),
        sa.Column("submitted_at", _TIME),
        sa.Column("zone", sa.Text),
        sa.Column("ready", sa.Boolean, nullable=False),
        sa.Column("cancelling", sa.Boolean, nullable=False),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("job_version", sa.BigInteger, nullable=False),
        sa.Column("epoch", sa.Integer, nullable=False),
        sa.Column("node", sa.Text),
        sa.Column("expires_at", _TIME),
        sa.Column("ended_at", _TIME),
        sa.Column("version", sa.BigInteger, nullable=False, server_default="0"),
        sa.Column("position", sa.Integer),
        sa.Column("estimated_start_at", _TIME),
        sa.Column("reason", sa.Text),
        sa.Column("told_at", _TIME),
    )
    op.create_index(
        "places_in_line",
        "places",
        ["gpu_type", "submitted_at", "job_id"],
        postgresql_where=sa.text("state = 'waiting'"),
    )
    op.create_index("places_open", "places", ["state"], postgresql_where=sa.text("state <> 'ended'"))
    op.create_index("places_ended_at", "places", ["ended_at"], postgresql_where=sa.text("state = 'ended'"))
