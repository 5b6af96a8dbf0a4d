"""Expand: how far a job's log is stored moves to the log's own row, in `job_logs`.

As with `job_access` (0009), triggers carry each change between it and the columns of `jobs` that replicas of the
release before use, until the release after this one drops both.
"""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"

_STATE = "(NEW.sealed IS NOT NULL, NEW.final, NEW.tries)"


def upgrade() -> None:
    # a log that could not be had yet has a row without content
    op.alter_column("job_logs", "sealed", nullable=True)
    op.alter_column("job_logs", "kept_at", nullable=True)
    op.add_column("job_logs", sa.Column("final", sa.Boolean(), nullable=False, server_default=sa.false()))
    op.add_column("job_logs", sa.Column("tries", sa.Integer(), nullable=False, server_default="0"))
    op.execute("""
        INSERT INTO job_logs (job_id, final, tries) SELECT id, log_final, log_tries FROM jobs
        WHERE log_final OR log_tries > 0
        ON CONFLICT (job_id) DO UPDATE SET final = excluded.final, tries = excluded.tries
    """)
    _carry_from_jobs()
    _carry_to_jobs()


def _carry_from_jobs() -> None:
    op.execute("""
        CREATE FUNCTION jobs_to_job_logs() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            INSERT INTO job_logs (job_id, final, tries) VALUES (NEW.id, NEW.log_final, NEW.log_tries)
            ON CONFLICT (job_id) DO UPDATE SET final = excluded.final, tries = excluded.tries;
            RETURN NULL;
        END $$
    """)
    op.execute("""
        CREATE TRIGGER jobs_to_job_logs AFTER UPDATE OF log_final, log_tries ON jobs FOR EACH ROW
        WHEN (pg_trigger_depth() = 0
              AND (OLD.log_final, OLD.log_tries) IS DISTINCT FROM (NEW.log_final, NEW.log_tries))
        EXECUTE FUNCTION jobs_to_job_logs()
    """)


def _carry_to_jobs() -> None:
    op.execute(f"""
        CREATE FUNCTION job_logs_to_jobs() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            UPDATE jobs SET (log_kept, log_final, log_tries) = {_STATE}
            WHERE id = NEW.job_id AND (log_kept, log_final, log_tries) IS DISTINCT FROM {_STATE};
            RETURN NULL;
        END $$
    """)
    op.execute("""
        CREATE TRIGGER job_logs_to_jobs AFTER INSERT OR UPDATE ON job_logs FOR EACH ROW
        WHEN (pg_trigger_depth() = 0) EXECUTE FUNCTION job_logs_to_jobs()
    """)


def downgrade() -> None:
    op.execute("DROP TRIGGER jobs_to_job_logs ON jobs")
    op.execute("DROP TRIGGER job_logs_to_jobs ON job_logs")
    op.execute("DROP FUNCTION jobs_to_job_logs, job_logs_to_jobs")
    op.execute("DELETE FROM job_logs WHERE sealed IS NULL")
    op.drop_column("job_logs", "tries")
    op.drop_column("job_logs", "final")
    op.alter_column("job_logs", "kept_at", nullable=False)
    op.alter_column("job_logs", "sealed", nullable=False)
