"""The tables that every service has in its own schema: outbox, inbox, dead letters, idempotency keys, audit.

Their migrations are versioned here too, so that four services need not repeat them: a service's migration calls the
functions below, which, once released, are never edited.
"""

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB

shared_metadata = sa.MetaData()

outbox = sa.Table(
    "outbox",
    shared_metadata,
    sa.Column("id", sa.BigInteger, sa.Identity(), primary_key=True),
    sa.Column("event_id", sa.Uuid, nullable=False, unique=True),
    sa.Column("type", sa.Text, nullable=False),
    sa.Column("subject", sa.Text, nullable=False),
    sa.Column("entity_id", sa.Text, nullable=False),
    sa.Column("entity_version", sa.BigInteger, nullable=False),
    sa.Column("occurred_at", sa.DateTime(timezone=True), nullable=False),
    sa.Column("request_id", sa.Text),
    sa.Column("data", JSONB, nullable=False),
    sa.Column("published_at", sa.DateTime(timezone=True)),
    sa.Column("stream_sequence", sa.BigInteger),
    # W3C Trace Context of what caused it; null when nobody traces it
    sa.Column("traceparent", sa.Text),
    sa.Index("outbox_unpublished", "id", postgresql_where=sa.text("published_at IS NULL")),
    sa.Index("outbox_published_at", "published_at"),
)

stream_seen = sa.Table(
    "stream_seen",
    shared_metadata,
    sa.Column("stream", sa.Text, primary_key=True),
    sa.Column("created", sa.Text, nullable=False),
)

inbox = sa.Table(
    "inbox",
    shared_metadata,
    sa.Column("event_id", sa.Uuid, primary_key=True),
    sa.Column("attempts", sa.Integer, nullable=False, server_default="0"),
    sa.Column("done_at", sa.DateTime(timezone=True)),
    sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
    sa.Index("inbox_updated_at", "updated_at"),
)

dead_letters = sa.Table(
    "dead_letters",
    shared_metadata,
    sa.Column("event_id", sa.Uuid, primary_key=True),
    sa.Column("subject", sa.Text, nullable=False),
    sa.Column("body", sa.LargeBinary, nullable=False),
    sa.Column("error", sa.Text, nullable=False),
    sa.Column("parked_at", sa.DateTime(timezone=True), nullable=False),
)

idempotency_keys = sa.Table(
    "idempotency_keys",
    shared_metadata,
    sa.Column("user_id", sa.BigInteger, primary_key=True),
    sa.Column("key", sa.Text, primary_key=True),
    sa.Column("fingerprint", sa.LargeBinary, nullable=False),
    sa.Column("answer", sa.LargeBinary, nullable=False),
    sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
    sa.Index("idempotency_keys_created_at", "created_at"),
)

audit = sa.Table(
    "audit",
    shared_metadata,
    sa.Column("id", sa.BigInteger, sa.Identity(), primary_key=True),
    sa.Column("at", sa.DateTime(timezone=True), nullable=False),
    sa.Column("action", sa.Text, nullable=False),
    sa.Column("user_id", sa.BigInteger),
    sa.Column("username", sa.Text),
    sa.Column("key_prefix", sa.Text),
    sa.Column("address", sa.Text),
    sa.Column("object_kind", sa.Text, nullable=False),
    sa.Column("object_id", sa.Text, nullable=False),
    sa.Column("object_name", sa.Text),
    sa.Column("request_id", sa.Text),
    sa.Index("audit_at", "at", "id"),
)


def create_shared_tables_0001(operations: Any) -> None:
    """First version of the shared tables; `operations` is `alembic.op`."""
    shared_metadata_0001: Sequence[sa.Table] = (outbox, stream_seen, inbox, dead_letters, idempotency_keys)
    bind = operations.get_bind()
    for table in shared_metadata_0001:
        table.create(bind)


def drop_shared_tables_0001(operations: Any) -> None:
    """Undo `create_shared_tables_0001`."""
    for name in ("idempotency_keys", "dead_letters", "inbox", "stream_seen", "outbox"):
        operations.drop_table(name)


def add_traceparent_0002(operations: Any) -> None:
    """The trace that an event belongs to; `operations` is `alembic.op`. A schema that is new has the column already."""
    operations.execute("ALTER TABLE outbox ADD COLUMN IF NOT EXISTS traceparent text")


def drop_traceparent_0002(operations: Any) -> None:
    """Undo `add_traceparent_0002`."""
    operations.drop_column("outbox", "traceparent")


def create_audit_table(operations: Any) -> None:
    """The table of the audit; `operations` is `alembic.op`."""
    audit.create(operations.get_bind())
