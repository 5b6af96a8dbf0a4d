"""Users, their API keys, and the windows of the log-in limits."""

import sqlalchemy as sa
from alembic import op

from shared.database.tables import create_shared_tables_0001, drop_shared_tables_0001

revision = "0001"
down_revision = None


def upgrade() -> None:
    create_shared_tables_0001(op)
    op.create_table(
        "users",
        sa.Column("id", sa.BigInteger, sa.Identity(), primary_key=True),
        sa.Column("account", sa.Text, nullable=False),
        sa.Column("role_id", sa.Text, nullable=False),
        sa.Column("username", sa.Text, nullable=False),
        sa.Column("version", sa.BigInteger, nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("last_login_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("disabled_at", sa.DateTime(timezone=True)),
        sa.UniqueConstraint("account", "role_id", "username", name="users_identity"),
    )
    op.create_index("users_username", "users", ["username"])
    op.create_table(
        "api_keys",
        sa.Column("id", sa.BigInteger, sa.Identity(), primary_key=True),
        sa.Column("key_id", sa.Text, nullable=False, unique=True),
        sa.Column("user_id", sa.BigInteger, sa.ForeignKey("users.id", name="api_keys_user"), nullable=False),
        sa.Column("hash", sa.LargeBinary, nullable=False, unique=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("session_ends_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("dies_at", sa.DateTime(timezone=True)),
        sa.Column("revoked_reason", sa.Text),
        sa.Column("last_used_at", sa.DateTime(timezone=True)),
        sa.CheckConstraint("expires_at <= session_ends_at", name="api_keys_end_with_session"),
    )
    op.create_index("api_keys_user_id", "api_keys", ["user_id", "created_at", "id"])
    op.create_index("api_keys_expires_at", "api_keys", ["expires_at"])
    op.create_table(
        "login_windows",
        sa.Column("bucket", sa.LargeBinary, primary_key=True),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False),
    )
    op.create_index("login_windows_started_at", "login_windows", ["started_at"])


def downgrade() -> None:
    op.drop_table("login_windows")
    op.drop_table("api_keys")
    op.drop_table("users")
    drop_shared_tables_0001(op)
