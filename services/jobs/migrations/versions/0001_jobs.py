import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

from shared.database.tables import create_shared_tables_0001, drop_shared_tables_0001

revision = "0001"
down_revision = None


def upgrade() -> None:
    create_shared_tables_0001(op)
    op.create_table(
        "jobs",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("user_id", sa.BigInteger(), nullable=False),
        sa.Column("username", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=True),
        sa.Column("image", sa.Text(), nullable=False),
        sa.Column("command", sa.Text(), nullable=True),
        sa.Column("instance_type", sa.Text(), nullable=False),
        sa.Column("gpu_type", sa.Text(), nullable=False),
        sa.Column("gpu_count", sa.Integer(), nullable=False),
        sa.Column("duration_seconds", sa.Integer(), nullable=False),
        sa.Column("disk_name", sa.Text(), nullable=True),
        sa.Column("disk_id", sa.Uuid(), nullable=True),
        sa.Column("availability_zone", sa.Text(), nullable=True),
        sa.Column("ebs_volume_id", sa.Text(), nullable=True),
        sa.Column("env_var_names", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("github_user", sa.Text(), nullable=True),
        sa.Column("jupyter_enabled", sa.Boolean(), nullable=False),
        sa.Column("jupyter_url", sa.Text(), nullable=True),
        sa.Column("jupyter_port", sa.Integer(), nullable=True),
        sa.Column("secondary_users", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("outcome", sa.Text(), nullable=True),
        sa.Column("requeue_reason", sa.Text(), nullable=True),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.Column("submit_message_id", sa.BigInteger(), nullable=False),
        sa.Column("cancel_message_id", sa.BigInteger(), nullable=True),
        sa.Column("epoch", sa.BigInteger(), nullable=False),
        sa.Column("node", sa.Text(), nullable=True),
        sa.Column("capacity_sequence", sa.BigInteger(), nullable=False),
        sa.Column("queue_position", sa.Integer(), nullable=True),
        sa.Column("estimated_start_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("pod_name", sa.Text(), nullable=True),
        sa.Column("pod_uid", sa.Text(), nullable=True),
        sa.Column("node_ip", sa.Text(), nullable=True),
        sa.Column("node_port", sa.Integer(), nullable=True),
        sa.Column("fault", sa.Text(), nullable=True),
        sa.Column("fault_since", sa.DateTime(timezone=True), nullable=True),
        sa.Column("detail", sa.Text(), nullable=True),
        sa.Column("status_reason", sa.Text(), nullable=True),
        sa.Column("failure_reason", sa.Text(), nullable=True),
        sa.Column("exit_code", sa.Integer(), nullable=True),
        sa.Column("warning", sa.Text(), nullable=True),
        sa.Column("warned_minutes", sa.Integer(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("granted_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("launched_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("ended_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("released_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("request_mac", sa.LargeBinary(), nullable=False),
        sa.Column("env_sealed", sa.LargeBinary(), nullable=True),
        sa.Column("jupyter_token_sealed", sa.LargeBinary(), nullable=True),
        sa.Column("due_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("worked_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("worked_by", sa.Uuid(), nullable=True),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index(
        "jobs_due",
        "jobs",
        ["due_at"],
        unique=False,
        postgresql_where=sa.text("node IS NOT NULL AND released_at IS NULL"),
    )
    op.create_index(
        "jobs_of_user",
        "jobs",
        ["user_id", sa.literal_column("created_at DESC"), sa.literal_column("id DESC")],
        unique=False,
        postgresql_include=["status"],
    )
    op.create_index("jobs_of_user_by_id", "jobs", ["user_id", "id"], unique=False)
    op.create_table(
        "job_history",
        sa.Column("job_id", sa.Uuid(), nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("job_id", "revision"),
    )


def downgrade() -> None:
    op.drop_table("job_history")
    op.drop_table("jobs")
    drop_shared_tables_0001(op)
