"""A NATS whose users are .creds files: the service is its user, a renewed file counts, and none is told to others."""

import asyncio
import json
import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from nats.aio.msg import Msg

from deploy.local.part import Part, program
from deploy.local.ports import HOST, accepts, free_ports
from shared.database import migrate
from shared.messaging import Broker
from shared.settings import SettingsError
from tests.support import nats_accounts
from tests.support.harness import eventually, running
from tests.support.nats_accounts import NatsAccounts, Nkey
from tests.support.replica import Replica, disks_settings
from tests.support.servers import PostgresServer, ServerProcess

PUBLISH = ["gpudev.v1.disks.>", "gpudev.rpc.>", "$JS.API.>", "$JS.ACK.>"]
SUBSCRIBE = ["_INBOX.disks.>", "gpudev.v1.>", "gpudev.rpc.disks.*", "$SRV.>"]


@dataclass
class JwtServer:
    accounts: NatsAccounts
    url: str
    process: ServerProcess
    log: Path

    def refused(self) -> int:
        """How often somebody was not let in."""
        return self.log.read_text().count("authentication error")

    def user(self, name: str = "disks", *, seconds: int | None = None) -> str:
        return self.accounts.user(name, PUBLISH, SUBSCRIBE, seconds=seconds)


@pytest.fixture(scope="module")
def server(server_directory: Path) -> Iterator[JwtServer]:
    directory = server_directory / "nats-jwt"
    directory.mkdir()
    accounts, (port,) = NatsAccounts(), free_ports(1)
    own = {"server_name": "jwt", "listen": f"{HOST}:{port}", "jetstream": {"store_dir": str(directory / "store")}}
    lines = [f"{name}: {json.dumps(value)}\n" for name, value in own.items()]
    configuration = nats_accounts.write(directory / "nats.conf", "".join(lines) + accounts.configuration())
    argv = (program("nats-server"), "-c", str(configuration))
    log = directory / "nats.log"
    process = ServerProcess(Part(name="nats-jwt", argv=argv, log=log, port=port, ready=lambda: accepts(port)))
    try:
        process.start()
        yield JwtServer(accounts, f"nats://{HOST}:{port}", process, log)
    finally:
        process.stop()


def broker(server: JwtServer, credentials: Path | None) -> Broker:
    file = None if credentials is None else str(credentials)
    return Broker(server.url, name="test", inbox="_INBOX.disks", credentials_file=file)


async def test_the_user_of_the_file_is_let_in_and_no_other(server: JwtServer, tmp_path: Path) -> None:
    before = server.refused()
    known = broker(server, nats_accounts.write(tmp_path / "known", server.user()))
    stranger = broker(server, nats_accounts.write(tmp_path / "stranger", NatsAccounts().user("disks", [">"], [">"])))
    nobody = broker(server, None)
    async with running(known.run, stranger.run, nobody.run):
        await eventually(lambda: known.connected, "the broker is connected")
        await asyncio.wait_for(known.ensure_stream(), 60)
        await eventually(lambda: server.refused() >= before + 4, "both others have tried")
        assert not stranger.connected
        assert not nobody.connected


async def test_a_renewed_file_is_read_at_the_next_connect(server: JwtServer, tmp_path: Path) -> None:
    file = nats_accounts.write(tmp_path / "creds", NatsAccounts().user("disks", PUBLISH, SUBSCRIBE))
    renewed, before = broker(server, file), server.refused()
    async with running(renewed.run):
        await eventually(lambda: server.refused() > before, "the old file was refused")
        nats_accounts.write(file, server.user())
        await eventually(lambda: renewed.connected, "connected with the new file")


async def test_a_user_that_expires_while_connected_is_let_in_again_with_a_renewed_file(
    server: JwtServer, tmp_path: Path
) -> None:
    file = nats_accounts.write(tmp_path / "creds", server.user(seconds=2))
    expiring, heard = broker(server, file), asyncio.Event()

    async def hear(_: Msg) -> None:
        heard.set()

    async with running(expiring.run):
        await eventually(lambda: expiring.connected, "the broker is connected")
        await expiring.client.subscribe("gpudev.rpc.disks.expiring", cb=hear)
        refused = server.refused()
        await eventually(lambda: server.refused() > refused, "the expired user comes back, and is refused")
        assert not expiring.connected
        nats_accounts.write(file, server.user())
        await eventually(lambda: expiring.connected, "connected with the new file")
        await expiring.client.publish("gpudev.rpc.disks.expiring", b"")
        await asyncio.wait_for(heard.wait(), 5)


async def test_a_file_that_is_spoilt_meanwhile_leaves_the_last_good_one(server: JwtServer, tmp_path: Path) -> None:
    file = nats_accounts.write(tmp_path / "creds", server.user())
    kept = broker(server, file)
    connects = 0

    async def count() -> None:
        nonlocal connects
        connects += 1

    kept.on_connect(count)
    async with running(kept.run):
        await eventually(lambda: connects == 1, "the broker is connected")
        nats_accounts.write(file, "half of a fi")
        server.process.stop()
        await eventually(lambda: not kept.connected, "the connection is lost")
        server.process.start()
        await eventually(lambda: connects == 2, "connected again")


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        (None, "cannot be read: FileNotFoundError"),
        ("", "has not both"),
        ("-----BEGIN NATS USER JWT-----\neyJ0\n------END NATS USER JWT------\n", "has not both"),
        ("seed {}", "has a seed that is not"),
        ("account {}", "has a seed that is not a user's"),
    ],
)
def test_a_file_of_no_use_is_named_at_the_start_and_nothing_of_it(text: str | None, fault: str, tmp_path: Path) -> None:
    file, good = tmp_path / "disks.creds", NatsAccounts().user("disks", [], [])
    if text is not None:
        if text.startswith("seed"):
            text = good.replace("\nSU", "\nSU234567", 1)
        elif text.startswith("account"):
            seed = good.split("BEGIN USER NKEY SEED-----\n")[1].partition("\n")[0]
            text = good.replace(seed, Nkey("account").seed)
        nats_accounts.write(file, text)
    with pytest.raises(SettingsError, match=f"GPUDEV_NATS_CREDENTIALS_FILE {fault}") as failed:
        Broker("nats://127.0.0.1:1", name="x", credentials_file=str(file))
    assert "eyJ0" not in str(failed.value)
    assert "SU" not in str(failed.value)


async def test_a_service_runs_as_the_user_of_its_file(
    server: JwtServer, postgres_server: PostgresServer, tmp_path: Path
) -> None:
    dsn = postgres_server.make_service_database("disks")
    await asyncio.to_thread(migrate.upgrade, "disks", dsn)
    file = nats_accounts.write(tmp_path / "disks.creds", server.user())
    settings = {**disks_settings(dsn, server.url), "GPUDEV_NATS_CREDENTIALS_FILE": str(file)}
    replica = Replica("disks", tmp_path / "disks.log", settings)
    replica.start()
    try:
        async with httpx.AsyncClient(base_url=replica.url, trust_env=False, timeout=60) as client:

            async def well() -> bool:
                health = (await client.get("/health/disks")).json()
                return [health["database"], health["queue"]] == ["healthy", "healthy"]

            await eventually(well, "database and broker are reached")
    finally:
        os.kill(replica.pid, signal.SIGINT)
        replica.stop()
    assert not [word for word in ("eyJ0", "NKEY SEED") if word in replica.log.read_text()]
