"""The line counted as it changes, so that an answer need not read all of it."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_KIND = "gpu_type, state, ready, cancelling, status"
_COUNTED = "gpu_type IS NOT NULL AND state <> 'ended'"


def upgrade() -> None:
    op.create_table(
        "line_counts",
        sa.Column("id", sa.BigInteger, sa.Identity(), primary_key=True),
        sa.Column("gpu_type", sa.Text, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("ready", sa.Boolean, nullable=False),
        sa.Column("cancelling", sa.Boolean, nullable=False),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("jobs", sa.BigInteger, nullable=False),
        sa.Column("gpus", sa.BigInteger, nullable=False),
    )
    op.execute(_insert(f"SELECT {_KIND}, 1 AS jobs, gpu_count AS gpus FROM places WHERE {_COUNTED}"))
    added = f"SELECT {_KIND}, 1 AS jobs, gpu_count AS gpus FROM new_places WHERE {_COUNTED}"
    removed = f"SELECT {_KIND}, -1 AS jobs, -gpu_count AS gpus FROM old_places WHERE {_COUNTED}"
    _count_on("INSERT", "NEW TABLE AS new_places", added)
    _count_on("DELETE", "OLD TABLE AS old_places", removed)
    _count_on("UPDATE", "OLD TABLE AS old_places NEW TABLE AS new_places", f"{added} UNION ALL {removed}")


def downgrade() -> None:
    for change in ("insert", "delete", "update"):
        op.execute(f"DROP TRIGGER count_{change} ON places")
        op.execute(f"DROP FUNCTION count_{change}()")
    op.drop_table("line_counts")


def _insert(changes: str) -> str:
    return (
        f"INSERT INTO line_counts ({_KIND}, jobs, gpus) SELECT {_KIND}, sum(jobs), sum(gpus) "
        f"FROM ({changes}) AS change GROUP BY {_KIND} HAVING sum(jobs) <> 0 OR sum(gpus) <> 0"
    )


def _count_on(change: str, tables: str, changes: str) -> None:
    name = f"count_{change.lower()}"
    op.execute(
        f"CREATE FUNCTION {name}() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {_insert(changes)}; RETURN NULL; END $$"
    )
    op.execute(
        f"CREATE TRIGGER {name} AFTER {change} ON places REFERENCING {tables} "
        f"FOR EACH STATEMENT EXECUTE FUNCTION {name}()"
    )
