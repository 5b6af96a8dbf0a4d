"""PostgreSQL and NATS with TLS and a certificate authority of their own."""

import asyncio
import os
import signal
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import httpx
import pytest
import sqlalchemy as sa

from deploy.local.broker import Broker as LocalBroker
from deploy.local.cluster.pki import Identity, ensure_identity
from deploy.local.part import Part, program
from deploy.local.ports import free_ports
from deploy.local.postgres import FAST, Postgres, server_user
from deploy.local.state import new_password, write_private
from shared.database import Database, Statement, migrate
from shared.errors import DatabaseUnavailable
from shared.messaging import Broker
from tests.support.harness import eventually, running
from tests.support.replica import ROOT, Replica, disks_settings
from tests.support.servers import PostgresServer, ServerProcess

_ENCRYPTED = Statement(sa.text("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()"))


@dataclass
class TlsServers:
    postgres: PostgresServer
    nats: LocalBroker
    authority: Path
    stranger: Path
    """Another authority, which has signed neither server."""

    def dsn(self, service: str, options: str) -> str:
        return f"{self.postgres.make_service_database(service)}?{options}"

    def nats_url(self, service: str) -> str:
        return self.nats.url(service).replace("nats://", "tls://")


@pytest.fixture(scope="module")
def servers(server_directory: Path) -> Iterator[TlsServers]:
    identity = ensure_identity(server_directory / "tls")
    stranger = ensure_identity(server_directory / "stranger")
    postgres, postgres_process = _postgres(server_directory / "tls-postgres", identity)
    nats, nats_process = _nats(server_directory / "tls-nats", identity)
    try:
        postgres_process.start()
        nats_process.start()
        yield TlsServers(PostgresServer(postgres.dsn(), postgres_process), nats, identity.ca, stranger.ca)
    finally:
        postgres_process.stop()
        nats_process.stop()


def _postgres(directory: Path, identity: Identity) -> tuple[Postgres, ServerProcess]:
    programs = next(Path("/usr/lib/postgresql").glob("*/bin/postgres"), None)
    if programs is None:
        pytest.skip("PostgreSQL of the package has no TLS: install Debian's")
    server = Postgres(directory=directory, port=free_ports(1)[0], password=new_password(), programs=programs.parent)
    server.initialise()
    for name, source in (("server.crt", identity.certificate), ("server.key", identity.key)):
        write_private(directory / name, source.read_text())
        if (user := server_user()) is not None:
            os.chown(directory / name, *user)
    # whoever comes without TLS is refused, except for who prepares databases: the package's psql has none
    rules = directory / "pg_hba.conf"
    write_private(rules, "host all postgres 127.0.0.1/32 scram-sha-256\nhostssl all all 127.0.0.1/32 scram-sha-256\n")
    if (user := server_user()) is not None:
        os.chown(rules, *user)
    return server, ServerProcess(server.part(directory.with_suffix(".log"), {**FAST, "ssl": "on"}))


def _nats(directory: Path, identity: Identity) -> tuple[LocalBroker, ServerProcess]:
    directory.mkdir()
    passwords = {"services_password": new_password(), "tools_password": new_password()}
    broker = LocalBroker(directory=directory, port=free_ports(1)[0], **passwords)
    part = broker.part(directory.with_suffix(".log"))
    tls = f'tls {{ cert_file: "{identity.certificate}", key_file: "{identity.key}" }}\n'
    write_private(directory / "tls.conf", f"{broker.configuration()}{tls}")
    return broker, ServerProcess(
        Part(
            name="nats",
            argv=(program("nats-server"), "-c", str(directory / "tls.conf")),
            log=part.log,
            port=part.port,
            ready=lambda: "Server is ready" in part.log.read_text(),
        )
    )


@asynccontextmanager
async def database(dsn: str) -> AsyncIterator[Database]:
    opened = Database(dsn, pool_size=2)
    try:
        yield opened
    finally:
        await opened.close()


async def test_migrations_and_the_database_hold_the_connection_to_its_options(servers: TlsServers) -> None:
    options = f"sslmode=verify-full&sslrootcert={quote(str(servers.authority), safe='')}"
    options += "&connect_timeout=5&keepalives=1&application_name=mine&options=-c%20statement_timeout%3D4321"
    dsn = servers.dsn("disks", options)
    await asyncio.to_thread(migrate.upgrade, "disks", dsn)
    await asyncio.to_thread(migrate.check, "disks", dsn)
    async with database(dsn) as opened:
        assert await opened.fetch_value(_ENCRYPTED) is True
        assert await opened.fetch_value(Statement(sa.text("SHOW statement_timeout"))) == "4321ms"
        session = await opened.open_session(idle_seconds=10)
        assert await session.fetch_value(_ENCRYPTED) is True
        session.terminate()


@pytest.mark.parametrize("how", ["another authority", "another name", "no TLS"])
async def test_a_server_that_is_not_the_one_meant_is_told_nothing(servers: TlsServers, how: str) -> None:
    authority = servers.stranger if how == "another authority" else servers.authority
    dsn = servers.dsn("disks", f"sslmode=verify-full&sslrootcert={authority}")
    if how == "another name":
        dsn = dsn.replace("@127.0.0.1:", "@127.1:")
    elif how == "no TLS":
        dsn = dsn.partition("?")[0] + "?sslmode=disable"
    async with database(dsn) as opened:
        with pytest.raises(DatabaseUnavailable):
            await opened.fetch_value(Statement(sa.text("SELECT 1")))
    with pytest.raises(SystemExit, match="disks: the schema is not migrated: ") as failed:
        await asyncio.to_thread(_migrate, dsn)
    assert dsn.split(":")[2].partition("@")[0] not in str(failed.value)


def _migrate(dsn: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GPUDEV_DATABASE_URL", dsn)
        migrate.main(["disks"])


async def test_the_broker_is_reached_over_tls_and_no_other_is(servers: TlsServers) -> None:
    url = servers.nats_url("disks")
    good = Broker(url, name="good", inbox="_INBOX.disks", ca_file=str(servers.authority))
    stranger = Broker(url, name="stranger", inbox="_INBOX.disks", ca_file=str(servers.stranger))
    renamed = url.replace("@127.0.0.1:", "@127.1:")
    other_name = Broker(renamed, name="name", inbox="_INBOX.disks", ca_file=str(servers.authority))
    async with running(good.run, stranger.run, other_name.run):
        await eventually(lambda: good.connected, "the broker is connected")
        await asyncio.wait_for(good.ensure_stream(), 60)
        assert not stranger.connected
        assert not other_name.connected


async def test_authorities_that_are_replaced_count_at_the_next_connect(servers: TlsServers, tmp_path: Path) -> None:
    file = tmp_path / "ca.pem"
    write_private(file, servers.authority.read_text())
    broker = Broker(servers.nats_url("disks"), name="replaced", inbox="_INBOX.disks", ca_file=str(file))
    async with running(broker.run):
        await eventually(lambda: broker.connected, "the broker is connected")
        client = broker.client
        write_private(file, servers.stranger.read_text())
        await client.force_reconnect()
        await eventually(lambda: isinstance(client.last_error, ssl.SSLError), "the server is none that is trusted now")
        assert not broker.connected
        write_private(file, "half of a fi")
        write_private(file, servers.authority.read_text())
        await eventually(lambda: broker.connected, "the server is trusted again")


async def test_no_password_is_said_to_a_broker_without_tls() -> None:
    said: list[bytes] = []
    served = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b'INFO {"server_id":"x","version":"2.11.0","proto":1,"max_payload":1048576,"headers":true}\r\n')
        said.append(await reader.read(100))
        writer.close()
        served.set()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    broker = Broker(f"tls://disks:secret@127.0.0.1:{port}", name="x")
    async with running(broker.run):
        await asyncio.wait_for(served.wait(), 60)
    server.close()
    assert said[0] == b""


async def test_a_service_runs_on_servers_with_tls(servers: TlsServers, tmp_path: Path) -> None:
    dsn = servers.dsn("disks", f"sslmode=verify-full&sslrootcert={servers.authority}")
    await asyncio.to_thread(migrate.upgrade, "disks", dsn)
    replica = Replica(
        "disks",
        tmp_path / "disks.log",
        {**disks_settings(dsn, servers.nats_url("disks")), "GPUDEV_NATS_CA_FILE": str(servers.authority)},
    )
    replica.start()
    try:
        async with httpx.AsyncClient(base_url=replica.url, trust_env=False, timeout=60) as client:

            async def parts() -> list[str]:
                health = (await client.get("/health/disks")).json()
                return [health["database"], health["queue"]]

            async def well() -> bool:
                return await parts() == ["healthy", "healthy"]

            assert (await client.get("/readyz")).status_code == 200
            await eventually(well, "database and broker are reached")
    finally:
        os.kill(replica.pid, signal.SIGINT)
        replica.stop()


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ("sslmod=verify-full", "sslmod"),
        ("sslmode=verify", "sslmode"),
        ("sslmode=verify-full&sslrootcert=/nowhere/ca.crt", "sslrootcert"),
        ("channel_binding=require", "channel_binding"),
        ("require_auth=scram-sha-256", "require_auth"),
    ],
)
def test_an_option_that_cannot_be_kept_is_named_at_the_start(options: str, named: str) -> None:
    dsn = f"postgresql://gpudev_disks:s3cret@127.0.0.1:1/gpudev?{options}"
    environment = {**os.environ, **disks_settings(dsn, "nats://127.0.0.1:1"), "GPUDEV_HOST": "127.0.0.1"}
    for command in ("shared.serve", "shared.database.migrate"):
        ended = subprocess.run(
            [sys.executable, "-m", command, "disks"],
            cwd=ROOT,
            env=environment,
            check=False,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert ended.returncode == 1
        assert named in ended.stderr
        assert "s3cret" not in ended.stderr
        assert "Traceback" not in ended.stderr
