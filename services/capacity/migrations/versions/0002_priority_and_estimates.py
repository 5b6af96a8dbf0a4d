"""Priority in the line, and what estimates are made from."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_TIME = sa.DateTime(timezone=True)
_COLUMNS = ("first_p90_at", "estimated_p90_at", "started_at", "granted_at", "avoids", "priority_version", "priority")
_WAITING = sa.text("state = 'waiting'")


def upgrade() -> None:
    op.add_column("places", sa.Column("priority", sa.Integer, nullable=False, server_default="0"))
    op.add_column("places", sa.Column("priority_version", sa.BigInteger, nullable=False, server_default="0"))
    op.add_column("places", sa.Column("avoids", sa.Text))
    for name in ("granted_at", "started_at", "estimated_p90_at", "first_p90_at"):
        op.add_column("places", sa.Column(name, _TIME))
    op.execute(
        "UPDATE places SET granted_at = (SELECT min(leases.granted_at) FROM leases "
        "WHERE leases.job_id = places.job_id) WHERE state = 'leased'"
    )
    op.drop_index("places_in_line", "places")
    op.create_index(
        "places_in_line",
        "places",
        ["gpu_type", sa.text("priority DESC"), "submitted_at", "job_id"],
        postgresql_where=_WAITING,
    )
    _create_measurements()


def downgrade() -> None:
    op.drop_table("calibrations")
    op.drop_table("runs")
    op.drop_index("places_in_line", "places")
    op.create_index("places_in_line", "places", ["gpu_type", "submitted_at", "job_id"], postgresql_where=_WAITING)
    for name in _COLUMNS:
        op.drop_column("places", name)


def _create_measurements() -> None:
    op.create_table(
        "runs",
        sa.Column("job_id", sa.Uuid, primary_key=True),
        sa.Column("gpu_type", sa.Text, nullable=False),
        sa.Column("requested_seconds", sa.Float, nullable=False),
        sa.Column("prepared_seconds", sa.Float, nullable=False),
        sa.Column("ran_seconds", sa.Float, nullable=False),
        sa.Column("ended_at", _TIME, nullable=False),
    )
    op.create_index("runs_ended_at", "runs", ["ended_at"])
    op.create_table(
        "calibrations",
        sa.Column("gpu_type", sa.Text, primary_key=True),
        sa.Column("day", sa.Date, primary_key=True),
        sa.Column("starts", sa.BigInteger, nullable=False),
        sa.Column("in_time", sa.BigInteger, nullable=False),
        sa.Column("factor", sa.Float, nullable=False),
    )
