"""Migrations: up, equal to the tables in code, and down again, with rows from before in each status."""

import asyncio
from collections.abc import Iterator
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import msgspec
import pytest

from shared.contracts.jobs import JobStatus
from shared.database import migrate
from tests.support.harness import connected, eventually
from tests.support.servers import PostgresServer

BEFORE_THE_SPLIT = "0008"
BEFORE_PRIORITIES = "0017"
ACCESS = (
    "users, jupyter_wanted, jupyter_enabled, jupyter_revision, jupyter_applied, jupyter_requested_at, "
    "jupyter_message_id, jupyter_error, jupyter_token_sealed"
)
OF_JOB = f"{ACCESS}, access_due_at, access_worked_until, access_worked_by"
OF_ACCESS = f"{ACCESS}, due_at, worked_until, worked_by"
OLD_ROW = """
INSERT INTO jobs (id, user_id, username, image, instance_type, gpu_type, gpu_count, duration_seconds, env_var_names,
    jupyter_enabled, status, version, revision, submit_message_id, epoch, capacity_sequence, created_at, updated_at,
    request_mac, due_at, users, jupyter_wanted, jupyter_revision, jupyter_applied, jupyter_token_sealed,
    access_due_at, access_worked_by, log_kept, log_final, log_tries)
VALUES ($1, 1, 'alice', 'debian', 'p5.48xlarge', 'h100', 1, 3600, '[]', true, $2, 1, 1, 1, 1, 0, now(), now(), 'mac',
    now(), '[{"name": "bob"}]', true, 3, 2, 'sealed', now(), gen_random_uuid(), $3, $3, $4)
"""
PRIORITISED = """
INSERT INTO outbox (event_id, type, subject, entity_id, entity_version, occurred_at, data, published_at)
VALUES (gen_random_uuid(), 'dev.gpudev.jobs.prioritised.v1', 'none', $1, 1, now(),
    jsonb_build_object('priority', $2::int), CASE WHEN $3 THEN now() - interval '3 days' END)
"""
WAITS_FOR_JOBS = "SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted AND relation = 'jobs'::regclass)"


@pytest.fixture
def dsn(postgres_server: PostgresServer) -> Iterator[str]:
    made = postgres_server.make_service_database("jobs")
    yield made
    postgres_server.drop_database(made)


class Sql:
    """Statements, each on a connection of its own."""

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn

    def __call__(self, statement: str, *arguments: Any) -> list[dict[str, Any]]:
        return asyncio.run(self._run(statement, arguments))

    async def _run(self, statement: str, arguments: tuple[Any, ...]) -> list[dict[str, Any]]:
        connection = await asyncpg.connect(self._dsn)
        try:
            return [dict(row) for row in await connection.fetch(statement, *arguments)]
        finally:
            await connection.close()

    def rows(self, columns: str, table: str) -> dict[UUID, tuple[Any, ...]]:
        """Rows of one of the jobs' tables, by the job."""
        key = "id" if table == "jobs" else "job_id"
        found = self(f"SELECT {key} AS key, {columns} FROM {table}")
        return {row.pop("key"): tuple(row.values()) for row in found}


@pytest.fixture
def filled(dsn: str) -> Sql:
    """A job in each status, and one whose log was stored, and one whose log could not be had, as they were before."""
    migrate.upgrade("jobs", dsn, BEFORE_THE_SPLIT)
    sql = Sql(dsn)
    for status in JobStatus:
        sql(OLD_ROW, uuid4(), status.value, False, 0)
    kept, missed = uuid4(), uuid4()
    sql(OLD_ROW, kept, "completed", True, 0)
    sql("INSERT INTO job_logs VALUES ($1, 'sealed', now())", kept)
    sql(OLD_ROW, missed, "active", False, 2)
    return sql


def test_migrations_make_the_tables_of_the_code_and_can_be_undone(dsn: str) -> None:
    migrate.upgrade("jobs", dsn)
    migrate.check("jobs", dsn)
    migrate.downgrade("jobs", dsn)
    migrate.upgrade("jobs", dsn)
    migrate.check("jobs", dsn)


def test_rows_from_before_have_their_access_and_log_and_lose_nothing_on_the_way_back(dsn: str, filled: Sql) -> None:
    jobs, logs = filled.rows("*", "jobs"), filled.rows("sealed, kept_at", "job_logs")
    old_access, old_log = filled.rows(OF_JOB, "jobs"), filled.rows("log_kept, log_final, log_tries", "jobs")
    migrate.upgrade("jobs", dsn)
    migrate.check("jobs", dsn)
    assert filled.rows(OF_ACCESS, "job_access") == old_access
    new_log = filled.rows("sealed IS NOT NULL, final, tries", "job_logs")
    assert new_log == {job_id: state for job_id, state in old_log.items() if state != (False, False, 0)}
    migrate.downgrade("jobs", dsn, BEFORE_THE_SPLIT)
    assert (filled.rows("*", "jobs"), filled.rows("sealed, kept_at", "job_logs")) == (jobs, logs)
    migrate.upgrade("jobs", dsn)
    assert filled.rows(OF_ACCESS, "job_access") == old_access


@pytest.mark.parametrize(
    ("table", "key", "change", "other", "seen"),
    [
        ("jobs", "id", "users = '[]', jupyter_error = 'why'", "job_access", ("[]", "why")),
        ("job_access", "job_id", "users = '[]', jupyter_error = 'why'", "jobs", ("[]", "why")),
    ],
)
def test_what_one_release_writes_of_access_the_other_reads(  # noqa: PLR0917
    dsn: str, filled: Sql, table: str, key: str, change: str, other: str, seen: tuple[Any, ...]
) -> None:
    migrate.upgrade("jobs", dsn)
    job_id = next(iter(filled.rows("status", "jobs")))
    before = filled.rows("version, revision, updated_at", "jobs")
    filled(f"UPDATE {table} SET {change} WHERE {key} = $1", job_id)
    assert filled.rows("users, jupyter_error", other)[job_id] == seen
    assert filled.rows("version, revision, updated_at", "jobs") == before


def test_what_one_release_writes_of_leases_the_other_reads(dsn: str, filled: Sql) -> None:
    migrate.upgrade("jobs", dsn)
    filled("UPDATE jobs SET access_worked_until = now(), access_worked_by = gen_random_uuid(), access_due_at = NULL")
    assert filled.rows(OF_ACCESS, "job_access") == filled.rows(OF_JOB, "jobs")
    filled("UPDATE job_access SET worked_until = now(), worked_by = gen_random_uuid(), due_at = now()")
    assert filled.rows(OF_ACCESS, "job_access") == filled.rows(OF_JOB, "jobs")


def test_what_one_release_writes_of_logs_the_other_reads(dsn: str, filled: Sql) -> None:
    migrate.upgrade("jobs", dsn)
    for job_id in filled.rows("status", "jobs"):
        filled("UPDATE jobs SET log_tries = 1, log_final = true WHERE id = $1", job_id)
    assert set(filled.rows("final, tries", "job_logs").values()) == {(True, 1)}
    filled("UPDATE job_logs SET sealed = 'sealed', final = false, tries = 2")
    assert set(filled.rows("log_kept, log_final, log_tries", "jobs").values()) == {(True, False, 2)}


def test_a_job_of_the_release_before_has_its_access_row_at_once(dsn: str) -> None:
    migrate.upgrade("jobs", dsn)
    sql, job_id = Sql(dsn), uuid4()
    sql(OLD_ROW, job_id, "queued", False, 0)
    assert sql.rows(OF_ACCESS, "job_access") == sql.rows(OF_JOB, "jobs")
    users = sql.rows("users", "job_access")[job_id][0]
    assert msgspec.json.decode(users) == [{"name": "bob"}]
    sql("DELETE FROM jobs")
    assert sql.rows("users", "job_access") == {}


def test_priorities_that_only_events_tell_of_are_the_jobs_own(dsn: str) -> None:
    migrate.upgrade("jobs", dsn, BEFORE_PRIORITIES)
    sql, jobs = Sql(dsn), [uuid4() for _ in range(3)]
    for job_id in jobs:
        sql(OLD_ROW, job_id, "queued", False, 0)
    raised, lowered, plain = jobs
    for job_id, priority, is_published in (
        (raised, 3, True),
        (lowered, 9, True),
        (raised, 7, True),
        (lowered, 0, False),
    ):
        sql(PRIORITISED, str(job_id), priority, is_published)
    before = sql.rows("version, revision, updated_at", "jobs")
    migrate.upgrade("jobs", dsn)
    assert sql.rows("priority", "jobs") == {raised: (7,), lowered: (0,), plain: (0,)}
    # replicas of the release before go on to write the event alone
    sql(PRIORITISED, str(plain), -4, False)
    assert sql.rows("priority", "jobs") == {raised: (7,), lowered: (0,), plain: (-4,)}
    assert sql.rows("version, revision, updated_at", "jobs") == before


async def test_a_priority_that_is_set_while_the_migration_runs_is_not_lost(dsn: str) -> None:
    await asyncio.to_thread(migrate.upgrade, "jobs", dsn, BEFORE_PRIORITIES)
    job_id = uuid4()
    async with connected(dsn) as setting, connected(dsn) as looking:
        await setting.execute(OLD_ROW, job_id, "queued", False, 0)
        transaction = setting.transaction()
        await transaction.start()
        await setting.execute("SELECT FROM jobs WHERE id = $1 FOR UPDATE", job_id)
        await setting.execute(PRIORITISED, str(job_id), 7, False)
        migration = asyncio.create_task(asyncio.to_thread(migrate.upgrade, "jobs", dsn))
        # it has read the outbox by then
        await eventually(lambda: looking.fetchval(WAITS_FOR_JOBS), "the migration waits for the table")
        await transaction.commit()
        await migration
        assert await looking.fetchval("SELECT priority FROM jobs WHERE id = $1", job_id) == 7
