"""A service and a schema of another release, and migrations that fail or meet."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import asyncpg
import httpx
import pytest

from shared.database import migrate
from shared.database.statement import Statement
from tests.support.harness import connected, eventually
from tests.support.replica import ROOT, Replica, disks_settings
from tests.support.servers import NatsServer, PostgresServer

_LONGER_THAN_A_LOCK = 6.0
"""Seconds; the locks of a migration's own statements are waited for 5 s."""
_WAITING = (
    "SELECT extract(epoch FROM clock_timestamp() - query_start) FROM pg_stat_activity "
    "WHERE wait_event_type = 'Lock' AND wait_event = 'advisory' AND datname = current_database()"
)

_WAITING_FOR_A_TABLE = (
    "SELECT count(*) FROM pg_stat_activity "
    "WHERE wait_event_type = 'Lock' AND wait_event = 'relation' AND datname = current_database()"
)


@pytest.fixture
def dsn(postgres_server: PostgresServer) -> Iterator[str]:
    dsn = postgres_server.make_service_database("disks")
    yield dsn
    postgres_server.drop_database(dsn)


@pytest.fixture
async def connection(dsn: str) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(dsn)
    yield connection
    await connection.close()


def start_migration(dsn: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-m", "shared.database.migrate", "disks"],
        cwd=ROOT,
        env={**os.environ, "GPUDEV_DATABASE_URL": dsn},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


async def test_a_replica_is_not_ready_while_its_schema_is_older(
    dsn: str, connection: asyncpg.Connection, nats_server: NatsServer, tmp_path: Path
) -> None:
    replica = Replica("disks", tmp_path / "disks.log", disks_settings(dsn, nats_server.service_url("disks")))
    replica.start()
    try:
        async with httpx.AsyncClient(base_url=replica.url, trust_env=False, timeout=60) as client:
            empty = await client.get("/readyz")
            await asyncio.to_thread(migrate.upgrade, "disks", dsn)
            newest = await client.get("/readyz")
            await asyncio.to_thread(migrate.downgrade, "disks", dsn, "0001")
            older = await client.get("/readyz")
            await asyncio.to_thread(migrate.upgrade, "disks", dsn)
            await connection.execute("UPDATE alembic_version SET version_num = '9999'")
            newer = await client.get("/readyz")
            alive = await client.get("/livez")
    finally:
        os.kill(replica.pid, signal.SIGINT)
        replica.stop()
    assert [answer.status_code for answer in (empty, newest, older, newer, alive)] == [503, 200, 503, 200, 200]
    assert "it is at nothing" in empty.text
    assert "it is at 0001" in older.text
    last = max((ROOT / "services/disks/migrations/versions").glob("0*.py")).stem
    assert last in older.text


async def test_a_second_run_waits_for_the_first_however_long_it_takes(dsn: str, connection: asyncpg.Connection) -> None:
    await connection.execute(Statement(migrate._LOCK).sql, *Statement(migrate._LOCK).arguments({}))
    runs = [start_migration(dsn), start_migration(dsn)]

    async def both_wait() -> bool:
        waited = await connection.fetch(_WAITING)
        return len(waited) == len(runs) and all(row[0] > _LONGER_THAN_A_LOCK for row in waited)

    await eventually(both_wait, "both wait for their turn")
    await connection.execute("SELECT pg_advisory_unlock_all()")
    for run in runs:
        said, complaint = await asyncio.to_thread(run.communicate, timeout=60)
        assert (run.returncode, said) == (0, "disks: schema is up to date\n"), complaint
    await asyncio.to_thread(migrate.check, "disks", dsn)


async def test_a_migration_that_meets_a_service_in_a_deadlock_begins_again(
    dsn: str, connection: asyncpg.Connection, postgres_server: PostgresServer
) -> None:
    await asyncio.to_thread(migrate.upgrade, "disks", dsn, "0001")
    database = dsn.rpartition("/")[2]

    async def look_after(seconds: int) -> None:
        """For so long whoever connects from now on waits before PostgreSQL looks why."""
        script = f"ALTER DATABASE {database} SET deadlock_timeout = '{seconds}s'"
        await asyncio.to_thread(postgres_server.execute, dsn, script)

    # it looks once, and ends who it looks at: the migration, when this side waits, too, and never this side
    await look_after(60)
    async with connected(dsn) as service, service.transaction():
        await look_after(3)
        await service.execute("SELECT FROM operations")
        migration = asyncio.create_task(asyncio.to_thread(migrate.upgrade, "disks", dsn))
        waits = "the migration has one table and waits for the other"
        await eventually(lambda: connection.fetchval(_WAITING_FOR_A_TABLE), waits)
        await service.execute("SELECT FROM disks")
    assert await migration
    met = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"
    await eventually(lambda: connection.fetchval(met), "there was one")


async def test_a_migration_that_fails_says_why_and_leaves_the_schema_as_it_was(
    dsn: str, connection: asyncpg.Connection
) -> None:
    await connection.execute("CREATE TABLE disks (id int)")
    run = start_migration(dsn)
    _, complaint = await asyncio.to_thread(run.communicate, timeout=60)
    assert run.returncode == 1
    assert complaint == 'disks: the schema is not migrated: relation "disks" already exists\n'
    assert await connection.fetchval("SELECT to_regclass('alembic_version')") is None


async def test_migrations_of_an_older_release_leave_a_newer_schema_as_it_is(
    dsn: str, connection: asyncpg.Connection
) -> None:
    """Whoever goes back by installing the release before runs its migrations."""
    await asyncio.to_thread(migrate.upgrade, "disks", dsn)
    await connection.execute("UPDATE alembic_version SET version_num = '9999'")

    run = start_migration(dsn)
    said, complaint = await asyncio.to_thread(run.communicate, timeout=60)

    assert (run.returncode, said) == (0, "disks: schema is a newer release's, and stays as it is\n"), complaint
    assert await connection.fetchval("SELECT version_num FROM alembic_version") == "9999"


async def test_a_migration_that_cannot_reach_the_database_says_so() -> None:
    run = start_migration("postgresql://gpudev_disks:s3cret@127.0.0.1:1/gpudev")
    _, complaint = await asyncio.to_thread(run.communicate, timeout=60)
    assert run.returncode == 1
    assert complaint.startswith("disks: the schema is not migrated: ")
    assert "s3cret" not in complaint
    assert "Traceback" not in complaint
