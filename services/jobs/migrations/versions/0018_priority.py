"""Expand: the priority that an operator has set is the job's own.

So far only the event said it, in the outbox, where it is kept for 8 days and found by reading all of it. A trigger
takes it from the events of replicas of the release before, until the release after this one drops it.
"""

import sqlalchemy as sa
from alembic import op

revision = "0018"
down_revision = "0017"

_TYPE = "dev.gpudev.jobs.prioritised.v1"
_TOLD = f"SELECT id, entity_id, CAST(data->>'priority' AS integer) FROM outbox WHERE type = '{_TYPE}'"
# what another transaction had not committed yet was not published either; an hour is far from what clocks differ by
_TOLD_SINCE = f"{_TOLD} AND (published_at IS NULL OR published_at > now() - interval '1 hour')"


def upgrade() -> None:
    # all of the outbox is read before anything is locked, and under the locks what its indexes find
    told = _read(_TOLD)
    op.add_column("jobs", sa.Column("priority", sa.Integer, nullable=False, server_default="0"))
    _carry_from_outbox()
    told |= _read(_TOLD_SINCE)
    # the last one of a job holds
    _write({job_id: priority for _, job_id, priority in sorted(told)})


def downgrade() -> None:
    op.drop_column("jobs", "priority")
    op.execute("DROP TRIGGER outbox_to_jobs ON outbox")
    op.execute("DROP FUNCTION outbox_to_jobs")


def _carry_from_outbox() -> None:
    op.execute("""
        CREATE FUNCTION outbox_to_jobs() RETURNS trigger LANGUAGE plpgsql AS $$
        DECLARE told integer := NEW.data->>'priority';
        BEGIN
            UPDATE jobs SET priority = told WHERE id = CAST(NEW.entity_id AS uuid) AND priority <> told;
            RETURN NULL;
        END $$
    """)
    op.execute(f"""
        CREATE TRIGGER outbox_to_jobs AFTER INSERT ON outbox FOR EACH ROW
        WHEN (NEW.type = '{_TYPE}') EXECUTE FUNCTION outbox_to_jobs()
    """)


def _read(events: str) -> set[tuple[int, str, int]]:
    return {(number, job_id, priority) for number, job_id, priority in op.get_bind().execute(sa.text(events))}


def _write(priorities: dict[str, int]) -> None:
    """In one statement. Owners are shown the same as before, so revisions stay."""
    given = "unnest(CAST(:ids AS uuid[]), CAST(:priorities AS integer[])) AS told(id, priority)"
    op.get_bind().execute(
        sa.text(f"UPDATE jobs SET priority = told.priority FROM {given} WHERE jobs.id = told.id"),
        {"ids": list(priorities), "priorities": list(priorities.values())},
    )
