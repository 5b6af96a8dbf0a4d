"""Expand: how many jobs each user has of each status, kept by triggers, so that no list has to count them, and an index
of those that have not ended, so that a list of these need not look at all others.

A change adds a row and locks none, so jobs of one user that change at once do not wait for each other; a loop of the
service folds the rows. Triggers count the writes of replicas of the release before, too.
"""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"


def upgrade() -> None:
    op.create_table(
        "job_counts",
        sa.Column("user_id", sa.BigInteger, nullable=False),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("jobs", sa.BigInteger, nullable=False),
    )
    op.create_index("job_counts_of_user", "job_counts", ["user_id"])
    # first: they wait for open transactions, and let no other change a job until this one commits
    _count_all("INSERT", "NEW TABLE AS changed", "count(*)")
    _count_all("DELETE", "OLD TABLE AS changed", "-count(*)")
    _count_changed_status()
    op.create_index(
        "jobs_open_of_user",
        "jobs",
        ["user_id", sa.text("created_at DESC"), sa.text("id DESC")],
        postgresql_where=sa.text("status IN ('active', 'pending', 'preparing', 'queued')"),
    )
    op.execute("INSERT INTO job_counts SELECT user_id, status, count(*) FROM jobs GROUP BY user_id, status")


def _count_all(change: str, tables: str, number: str) -> None:
    name = f"count_jobs_{change.lower()}"
    op.execute(f"""
        CREATE FUNCTION {name}() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            INSERT INTO job_counts (user_id, status, jobs)
            SELECT user_id, status, {number} FROM changed GROUP BY user_id, status;
            RETURN NULL;
        END $$
    """)
    op.execute(f"""
        CREATE TRIGGER {name} AFTER {change} ON jobs REFERENCING {tables}
        FOR EACH STATEMENT EXECUTE FUNCTION {name}()
    """)


def _count_changed_status() -> None:
    # by row: most changes leave the status, and a trigger by statement would be called for them as well
    op.execute("""
        CREATE FUNCTION count_jobs_update() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            INSERT INTO job_counts (user_id, status, jobs)
            VALUES (OLD.user_id, OLD.status, -1), (NEW.user_id, NEW.status, 1);
            RETURN NULL;
        END $$
    """)
    op.execute("""
        CREATE TRIGGER count_jobs_update AFTER UPDATE OF status, user_id ON jobs FOR EACH ROW
        WHEN ((OLD.user_id, OLD.status) IS DISTINCT FROM (NEW.user_id, NEW.status))
        EXECUTE FUNCTION count_jobs_update()
    """)


def downgrade() -> None:
    op.drop_index("jobs_open_of_user", "jobs")
    for change in ("insert", "delete", "update"):
        op.execute(f"DROP TRIGGER count_jobs_{change} ON jobs")
        op.execute(f"DROP FUNCTION count_jobs_{change}()")
    op.drop_table("job_counts")
