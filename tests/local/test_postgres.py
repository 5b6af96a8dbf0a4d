from pathlib import Path

import asyncpg
import pytest

from deploy.local import proc
from deploy.local.part import PartFailedError
from deploy.local.ports import free_ports
from deploy.local.postgres import DATABASE, FAST, SUPERUSER, Postgres, execute, prepare_database, service_dsn
from deploy.local.state import new_password
from shared.routes import SERVICES
from tests.local.conftest import eventually
from tests.support.servers import PostgresServer, ServerProcess


async def test_a_service_works_in_its_own_schema(postgres_server: PostgresServer) -> None:
    connection = await asyncpg.connect(postgres_server.make_service_database("jobs"))
    try:
        await connection.execute("CREATE TABLE things (id int)")

        assert await connection.fetchval("SELECT schemaname FROM pg_tables WHERE tablename = 'things'") == "jobs"
    finally:
        await connection.close()


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT * FROM jobs.secrets",
        "CREATE TABLE jobs.mine (id int)",
        "CREATE TABLE public.mine (id int)",
        "CREATE SCHEMA mine",
        "CREATE TEMPORARY TABLE mine (id int)",
    ],
)
async def test_a_service_reaches_nothing_but_its_own_schema(postgres_server: PostgresServer, statement: str) -> None:
    dsns = postgres_server.create_database("auth", "jobs")
    owner = await asyncpg.connect(dsns["jobs"])
    await owner.execute("CREATE TABLE secrets (id int)")
    await owner.close()
    other = await asyncpg.connect(dsns["auth"])
    try:
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await other.execute(statement)
    finally:
        await other.close()


async def test_a_service_cannot_open_another_database(postgres_server: PostgresServer) -> None:
    dsn = postgres_server.make_service_database("auth")

    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await asyncpg.connect(f"{dsn.rpartition('/')[0]}/postgres")


async def test_a_wrong_password_is_refused(postgres_server: PostgresServer) -> None:
    dsn = postgres_server.make_service_database("auth")

    with pytest.raises(asyncpg.InvalidPasswordError):
        await asyncpg.connect(dsn.replace("gpudev_auth:", "gpudev_auth:not"))


async def test_preparing_a_database_again_changes_nothing_but_the_password(postgres_server: PostgresServer) -> None:
    dsn = postgres_server.make_service_database("capacity")
    connection = await asyncpg.connect(dsn)
    await connection.execute("CREATE TABLE things AS SELECT 1 AS id")
    await connection.close()
    database, password = dsn.rpartition("/")[2], dsn.split(":")[2].partition("@")[0]

    prepare_database(postgres_server.admin_dsn, database, {"capacity": password})

    connection = await asyncpg.connect(dsn)
    try:
        assert await connection.fetchval("SELECT id FROM things") == 1
    finally:
        await connection.close()


async def test_what_was_committed_survives_a_kill_and_no_backend_does(postgres_server: PostgresServer) -> None:
    process = postgres_server.process
    connection = await asyncpg.connect(postgres_server.make_service_database("jobs"))
    await connection.execute("CREATE TABLE things AS SELECT 1 AS id")
    backend = await connection.fetchval("SELECT pg_backend_pid()")
    dsn = str(postgres_server.admin_dsn)
    before = await connection.fetchval("SELECT current_database()")

    process.kill()

    eventually(lambda: proc.start_time(backend) is None)
    connection.terminate()
    process.start()
    connection = await asyncpg.connect(f"{dsn.rpartition('/')[0]}/{before}")
    try:
        assert await connection.fetchval("SELECT id FROM jobs.things") == 1
    finally:
        await connection.close()


async def test_a_stopped_server_refuses_and_returns_on_the_same_port(postgres_server: PostgresServer) -> None:
    postgres_server.process.stop()
    try:
        with pytest.raises(OSError, match="Connect call failed"):
            await asyncpg.connect(postgres_server.admin_dsn)
    finally:
        postgres_server.process.start()

    connection = await asyncpg.connect(postgres_server.admin_dsn)
    await connection.close()


def test_a_role_that_is_no_superuser_can_prepare_a_database(tmp_path: Path) -> None:
    """As on RDS, whose first role has CREATEROLE and CREATEDB."""
    server = Postgres(directory=tmp_path / "postgres", port=free_ports(1)[0], password=new_password())
    server.initialise()
    process = ServerProcess(server.part(tmp_path / "log", FAST))
    process.start()
    try:
        execute(server.dsn(), "CREATE ROLE rds LOGIN CREATEROLE CREATEDB PASSWORD 'p';")
        admin = server.dsn().replace(f"{SUPERUSER}:{server.password}", "rds:p")
        passwords = {service: new_password() for service in SERVICES}

        prepare_database(admin, DATABASE, passwords)
        passwords["jobs"] = new_password()
        prepare_database(admin, DATABASE, passwords)

        for service in SERVICES:
            own = service_dsn(service, passwords[service], server.dsn(), DATABASE)
            execute(own, "CREATE TABLE things (id int); SELECT * FROM things;")
            with pytest.raises(PartFailedError, match="permission denied"):
                execute(own, f"SELECT * FROM {'auth' if service == 'jobs' else 'jobs'}.things;")
            with pytest.raises(PartFailedError, match="permission denied"):
                execute(own, "CREATE TABLE public.things (id int);")
    finally:
        process.stop()
