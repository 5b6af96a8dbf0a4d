"""Expand: who may enter a job, and Jupyter in it, get a table of their own, `job_access`.

Replicas of the release before read and write the same in columns of `jobs`. Until they are gone, triggers carry each
change from one to the other, both ways. The release after this one may contract: drop the triggers and the columns
(docs/operate/upgrade.md). Whoever writes both locks the row of `jobs` first.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0009"
down_revision = "0008"

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
_OF_ACCESS = (*_SAME, *_LEASE)
_OF_JOB = (*_SAME, *(f"access_{name}" for name in _LEASE))


def _listed(names: tuple[str, ...], prefix: str = "") -> str:
    return ", ".join(prefix + name for name in names)


def upgrade() -> None:
    _create_table()
    # rows of new replicas come without it
    op.alter_column("jobs", "jupyter_enabled", server_default=sa.false())
    _carry_from_jobs()
    _carry_to_jobs()
    op.execute(
        f"INSERT INTO job_access (job_id, {_listed(_OF_ACCESS)}) SELECT id, {_listed(_OF_JOB)} FROM jobs"
        " ON CONFLICT DO NOTHING"
    )


def _create_table() -> None:
    time = sa.DateTime(timezone=True)
    op.create_table(
        "job_access",
        sa.Column("job_id", sa.Uuid(), nullable=False),
        sa.Column("users", postgresql.JSONB(), nullable=False, server_default="[]"),
        sa.Column("jupyter_wanted", sa.Boolean(), nullable=False, server_default=sa.false()),
        sa.Column("jupyter_enabled", sa.Boolean(), nullable=False, server_default=sa.false()),
        sa.Column("jupyter_revision", sa.BigInteger(), nullable=False, server_default="0"),
        sa.Column("jupyter_applied", sa.BigInteger(), nullable=False, server_default="0"),
        sa.Column("jupyter_requested_at", time),
        sa.Column("jupyter_message_id", sa.BigInteger()),
        sa.Column("jupyter_error", sa.Text()),
        sa.Column("jupyter_token_sealed", sa.LargeBinary()),
        sa.Column("due_at", time),
        sa.Column("worked_until", time),
        sa.Column("worked_by", sa.Uuid()),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("job_id"),
    )
    op.create_index("job_access_due", "job_access", ["due_at"], postgresql_where=sa.text("due_at IS NOT NULL"))


def _carry_from_jobs() -> None:
    """What a replica of the release before writes."""
    op.execute(f"""
        CREATE FUNCTION jobs_to_job_access() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            IF TG_OP = 'INSERT' THEN
                INSERT INTO job_access (job_id, {_listed(_OF_ACCESS)}) VALUES (NEW.id, {_listed(_OF_JOB, "NEW.")})
                ON CONFLICT DO NOTHING;  -- a new replica has made it in the same statement
            ELSE
                UPDATE job_access SET ({_listed(_OF_ACCESS)}) = ({_listed(_OF_JOB, "NEW.")}) WHERE job_id = NEW.id;
            END IF;
            RETURN NULL;
        END $$
    """)
    op.execute("""
        CREATE TRIGGER jobs_to_job_access_new AFTER INSERT ON jobs FOR EACH ROW EXECUTE FUNCTION jobs_to_job_access()
    """)
    op.execute(f"""
        CREATE TRIGGER jobs_to_job_access_changed AFTER UPDATE OF {_listed(_OF_JOB)} ON jobs FOR EACH ROW
        WHEN (pg_trigger_depth() = 0
              AND ({_listed(_OF_JOB, "OLD.")}) IS DISTINCT FROM ({_listed(_OF_JOB, "NEW.")}))
        EXECUTE FUNCTION jobs_to_job_access()
    """)


def _carry_to_jobs() -> None:
    """What a replica of the release before reads."""
    op.execute(f"""
        CREATE FUNCTION job_access_to_jobs() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            UPDATE jobs SET ({_listed(_OF_JOB)}) = ({_listed(_OF_ACCESS, "NEW.")})
            WHERE id = NEW.job_id AND ({_listed(_OF_JOB)}) IS DISTINCT FROM ({_listed(_OF_ACCESS, "NEW.")});
            RETURN NULL;
        END $$
    """)
    op.execute("""
        CREATE TRIGGER job_access_to_jobs AFTER INSERT OR UPDATE ON job_access FOR EACH ROW
        WHEN (pg_trigger_depth() = 0) EXECUTE FUNCTION job_access_to_jobs()
    """)


def downgrade() -> None:
    for name in ("jobs_to_job_access_new", "jobs_to_job_access_changed"):
        op.execute(f"DROP TRIGGER {name} ON jobs")
    op.drop_table("job_access")
    op.execute("DROP FUNCTION jobs_to_job_access, job_access_to_jobs")
    op.alter_column("jobs", "jupyter_enabled", server_default=None)
