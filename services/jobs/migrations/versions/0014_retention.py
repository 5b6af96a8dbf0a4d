"""Jobs that ended long ago are found by an index, and the triggers of 0009 cost new jobs less.

Rows of new replicas come many at once: their rows of `job_access` are looked for once a statement and not once a job.
And what new replicas write of a job that nobody is to enter is what `jobs` has by default: there is nothing to carry.
"""

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"

_SAME = (
    "users",
    "jupyter_wanted",
    "jupyter_enabled",
    "jupyter_revision",
    "jupyter_applied",
    "jupyter_requested_at",
    "jupyter_message_id",
    "jupyter_error",
    "jupyter_token_sealed",
)
_LEASE = ("due_at", "worked_until", "worked_by")
_OF_ACCESS = ", ".join((*_SAME, *_LEASE))
_OF_JOB = ", ".join((*_SAME, *(f"access_{name}" for name in _LEASE)))
_DEFAULTS = "'[]'::jsonb, false, false, 0::bigint, 0::bigint, NULL, NULL, NULL, NULL, NULL, NULL, NULL"


def upgrade() -> None:
    op.create_index("jobs_released", "jobs", ["released_at"], postgresql_where=sa.text("released_at IS NOT NULL"))
    op.execute(f"""
        CREATE FUNCTION new_jobs_to_job_access() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            INSERT INTO job_access (job_id, {_OF_ACCESS}) SELECT id, {_OF_JOB} FROM new_jobs
            ON CONFLICT DO NOTHING;  -- new replicas have made them in the same statement
            RETURN NULL;
        END $$
    """)
    op.execute("DROP TRIGGER jobs_to_job_access_new ON jobs")
    op.execute("""
        CREATE TRIGGER jobs_to_job_access_new AFTER INSERT ON jobs REFERENCING NEW TABLE AS new_jobs
        FOR EACH STATEMENT EXECUTE FUNCTION new_jobs_to_job_access()
    """)
    op.execute("DROP TRIGGER job_access_to_jobs ON job_access")
    _carry_to_jobs("job_access_to_jobs", "UPDATE", "pg_trigger_depth() = 0")
    new = ", ".join(f"NEW.{name}" for name in (*_SAME, *_LEASE))
    unlike = f"pg_trigger_depth() = 0 AND ({new}) IS DISTINCT FROM ({_DEFAULTS})"
    _carry_to_jobs("job_access_to_jobs_new", "INSERT", unlike)


def downgrade() -> None:
    op.execute("DROP TRIGGER job_access_to_jobs_new ON job_access")
    op.execute("DROP TRIGGER job_access_to_jobs ON job_access")
    _carry_to_jobs("job_access_to_jobs", "INSERT OR UPDATE", "pg_trigger_depth() = 0")
    op.execute("DROP TRIGGER jobs_to_job_access_new ON jobs")
    op.execute("""
        CREATE TRIGGER jobs_to_job_access_new AFTER INSERT ON jobs FOR EACH ROW EXECUTE FUNCTION jobs_to_job_access()
    """)
    op.execute("DROP FUNCTION new_jobs_to_job_access")
    op.drop_index("jobs_released", "jobs")


def _carry_to_jobs(name: str, changes: str, condition: str) -> None:
    op.execute(f"""
        CREATE TRIGGER {name} AFTER {changes} ON job_access FOR EACH ROW
        WHEN ({condition}) EXECUTE FUNCTION job_access_to_jobs()
    """)
