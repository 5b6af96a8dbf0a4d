"""Expand: how many jobs each user has in spans of time, so that a page far from the first need not count all before it.

A change of the counts says now in which second its jobs were submitted. The loop that folds them adds them to the span
of that second, and begins a new span where one has become long. What was folded before, by a replica of the release
before too, says no second: the loop then counts the user's spans anew, so there is nothing to fill here.
"""

import sqlalchemy as sa
from alembic import op

revision = "0017"
down_revision = "0016"

_COUNTED = ("user_id", "status")


def upgrade() -> None:
    # first, in the order in which a submission locks them: no job changes until this commits
    _count_changes(*_COUNTED, "created_at")
    op.add_column(
        "job_counts",
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("'-infinity'"), nullable=True),
    )
    op.create_table(
        "job_spans",
        sa.Column("user_id", sa.BigInteger, nullable=False),
        sa.Column("begins_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("jobs", sa.BigInteger, nullable=False),
    )
    op.create_index("job_spans_of_user", "job_spans", ["user_id", "begins_at"])
    _count_all("INSERT", "count(*)", "created_at")
    _count_all("DELETE", "-count(*)", "created_at")


def downgrade() -> None:
    _count_changes(*_COUNTED)
    op.drop_table("job_spans")
    op.drop_column("job_counts", "created_at")
    _count_all("INSERT", "count(*)")
    _count_all("DELETE", "-count(*)")


def _count_all(change: str, number: str, *of: str) -> None:
    """Replace what the triggers of 0012 call once a statement."""
    seconds = [f"date_trunc('second', {column})" for column in of]
    op.execute(f"""
        CREATE OR REPLACE FUNCTION count_jobs_{change.lower()}() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            INSERT INTO job_counts ({", ".join((*_COUNTED, *of, "jobs"))})
            SELECT {", ".join((*_COUNTED, *seconds, number))} FROM changed
            GROUP BY {", ".join((*_COUNTED, *seconds))};
            RETURN NULL;
        END $$
    """)


def _count_changes(*of: str) -> None:
    """Replace the trigger of 0012 that is called once a row, and what it calls."""
    old, new = (", ".join(f"{row}.{column}" for column in of) for row in ("OLD", "NEW"))
    op.execute(f"""
        CREATE OR REPLACE TRIGGER count_jobs_update AFTER UPDATE OF {", ".join(of)} ON jobs FOR EACH ROW
        WHEN (({old}) IS DISTINCT FROM ({new})) EXECUTE FUNCTION count_jobs_update()
    """)
    old, new = (_row(row, of) for row in ("OLD", "NEW"))
    op.execute(f"""
        CREATE OR REPLACE FUNCTION count_jobs_update() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            INSERT INTO job_counts ({", ".join(of)}, jobs) VALUES ({old}, -1), ({new}, 1);
            RETURN NULL;
        END $$
    """)


def _row(row: str, of: tuple[str, ...]) -> str:
    return ", ".join(
        f"date_trunc('second', {row}.{column})" if column == "created_at" else f"{row}.{column}" for column in of
    )
