"""A service's process from its start to its end."""

import asyncio
import os
import resource
import signal
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from uuid import UUID

import httpx
import msgspec
import nats.errors
import pytest
import sqlalchemy as sa
from aiohttp import web

from shared.contracts.disks import CLAIM_SUBJECT, ClaimRequest
from shared.database import Database, Statement
from shared.database.migrate import upgrade
from tests.support.harness import eventually, nats_client
from tests.support.http_server import serving
from tests.support.promises import promised
from tests.support.replica import Replica, disks_settings
from tests.support.servers import NatsServer, PostgresServer


@pytest.fixture
def dsn(postgres_server: PostgresServer) -> Iterator[str]:
    """Of a database as disks wants it."""
    dsn = postgres_server.make_service_database("disks")
    upgrade("disks", dsn)
    yield dsn
    postgres_server.drop_database(dsn)


@pytest.fixture
def make_replica(dsn: str, nats_server: NatsServer, tmp_path: Path) -> Iterator[Callable[..., Replica]]:
    """Starts a replica of disks; settings by name."""
    made: list[Replica] = []

    def make(**settings: str) -> Replica:
        environment = {**disks_settings(dsn, nats_server.service_url("disks")), **settings}
        replica = Replica("disks", tmp_path / f"disks-{len(made)}.log", environment)
        made.append(replica)
        replica.start()
        return replica

    yield make
    for replica in made:
        replica.kill()


async def ended(replica: Replica, *, seconds: float = 60.0) -> None:
    await eventually(lambda: not replica.running, "the process has ended", seconds=seconds)


async def test_a_replica_that_has_to_go_says_so_and_serves_before_it_shuts_down(
    make_replica: Callable[..., Replica],
) -> None:
    replica = make_replica(GPUDEV_DRAIN_SECONDS="5")
    async with httpx.AsyncClient(base_url=replica.url, trust_env=False, timeout=60) as client:
        assert (await client.get("/readyz")).status_code == 200
        assert "connection" not in (await client.get("/livez")).headers
        os.kill(replica.pid, signal.SIGTERM)
        began = time.monotonic()
        not_ready = await eventually(partial(_unready, client), "it says that it goes")
        assert not_ready == "this replica is about to stop"
        assert (await client.get("/readyz/shutdown")).status_code == 503
        while time.monotonic() - began < 2.5:
            served = await client.get("/livez")
            assert (served.status_code, served.headers["connection"]) == (200, "close")
            await asyncio.sleep(0.05)
    await ended(replica)
    assert replica.returncode == 0
    assert time.monotonic() - began >= 5
    assert "service_stopped" in replica.log.read_text()


async def _unready(client: httpx.AsyncClient) -> str | None:
    answer = await client.get("/readyz")
    return answer.text if answer.status_code == 503 else None


def test_a_replica_opens_as_many_files_as_it_may(make_replica: Callable[..., Replica]) -> None:
    """What it is given at first is less in many containers than its sessions take."""
    given, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (1024, most))
    try:
        replica = make_replica()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (given, most))
    assert resource.prlimit(replica.pid, resource.RLIMIT_NOFILE) == (most, most)


@pytest.mark.parametrize("signals", [[signal.SIGINT], [signal.SIGTERM, signal.SIGTERM]])
async def test_at_the_terminal_nobody_waits_for_a_balancer(
    make_replica: Callable[..., Replica], signals: list[signal.Signals]
) -> None:
    replica = make_replica(GPUDEV_DRAIN_SECONDS="60")
    os.kill(replica.pid, signals[0])
    for number in signals[1:]:
        await eventually(lambda: "draining" in replica.log.read_text(), "the first is taken")
        os.kill(replica.pid, number)
    await ended(replica)
    assert replica.returncode == 0
    assert "service_stopped" in replica.log.read_text()


async def test_a_request_under_way_is_served_to_its_end(make_replica: Callable[..., Replica]) -> None:
    """Its body comes only once the listener is closed."""
    replica = make_replica()
    url = httpx.URL(replica.url)
    reader, writer = await asyncio.open_connection(url.host, url.port)
    writer.write(b"GET /livez HTTP/1.1\r\nHost: a\r\nContent-Type: text/plain\r\nContent-Length: 2\r\n\r\n")
    writer.write(b"a")
    await writer.drain()
    os.kill(replica.pid, signal.SIGTERM)
    await eventually(partial(_refuses, url), "no new connection is taken")
    writer.write(b"b")
    head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 60)
    assert head.startswith(b"HTTP/1.1 200 ")
    writer.close()
    await ended(replica)
    assert replica.returncode == 0


async def _refuses(url: httpx.URL) -> bool:
    try:
        _, writer = await asyncio.open_connection(url.host, url.port)
    except ConnectionRefusedError:
        return True
    writer.close()
    return False


async def test_metrics_are_on_a_port_of_their_own(make_replica: Callable[..., Replica]) -> None:
    replica = make_replica()
    async with httpx.AsyncClient(trust_env=False, timeout=60) as client:
        assert (await client.get(f"{replica.url}/metrics")).status_code == 404
        metrics = await client.get(replica.metrics_url)
    assert metrics.headers["content-type"].startswith("text/plain")
    assert "gpudev_loop_turns_total{" in metrics.text


async def test_what_a_start_has_made_is_out_of_garbage_collection(
    make_replica: Callable[..., Replica], tmp_path: Path
) -> None:
    told = tmp_path / "frozen"
    ask = f"open({str(told)!r}, 'w').write(f'{{gc.get_freeze_count()}} {{gc.get_threshold()[0]}}')"
    (tmp_path / "sitecustomize.py").write_text(f"import atexit, gc\natexit.register(lambda: {ask})\n")
    replica = make_replica(PYTHONPATH=str(tmp_path))
    os.kill(replica.pid, signal.SIGTERM)
    await ended(replica)
    frozen, young = map(int, told.read_text().split())
    assert frozen > 50_000
    assert young > 1_000


async def test_a_wrong_setting_is_named_and_ends_the_process(make_replica: Callable[..., Replica]) -> None:
    with pytest.raises(Exception, match="GPUDEV_SWEEP_SECONDS") as failed:
        make_replica(GPUDEV_SWEEP_SECONDS="often")
    assert "Traceback" not in str(failed.value)


@asynccontextmanager
async def silent_aws() -> AsyncIterator[tuple[str, list[str]]]:
    """The URL of an AWS that takes calls and answers none, and what they ask for."""
    asked: list[str] = []

    async def take(request: web.Request) -> web.Response:
        asked.append(str((await request.post())["Action"]))
        await asyncio.Event().wait()
        raise AssertionError

    async with serving(take) as url:
        yield url, asked


async def test_work_under_way_is_another_replicas_at_once(
    make_replica: Callable[..., Replica], dsn: str, nats_server: NatsServer
) -> None:
    """Its lease would last 8 s, and a failure would make it rest."""
    async with opened(dsn) as database, silent_aws() as (url, asked), silent_aws() as (others_url, others_asked):
        one = await asyncio.to_thread(make_replica, GPUDEV_AWS_ENDPOINT_URL=url)
        other = await asyncio.to_thread(make_replica, GPUDEV_AWS_ENDPOINT_URL=others_url)
        # both are there before the work is: silence is a failure after a while, in which a replica may not start
        await eventually(lambda: _claim_disk(nats_server), "a job asks for a disk")
        await eventually(lambda: "CreateVolume" in asked + others_asked, "the disk is being made")
        held = await _lease(database)
        assert held is not None
        first = one if "CreateVolume" in asked else other
        os.kill(first.pid, signal.SIGTERM)
        await eventually(lambda: "service_stopped" in first.log.read_text(), "its application has shut down")

        async def handed_over() -> bool:
            return await _lease(database) == held + 1

        with promised(3):
            await eventually(handed_over, "the other goes on with it")
        assert await database.fetch_value(Statement(sa.text("SELECT max(failures) FROM operations"))) == 0
        await ended(first)


@asynccontextmanager
async def opened(dsn: str) -> AsyncIterator[Database]:
    database = Database(dsn, pool_size=1)
    try:
        yield database
    finally:
        await database.close()


async def _claim_disk(nats_server: NatsServer) -> bool:
    """As the jobs service does; False while no replica listens."""
    asked = ClaimRequest(user_id=1, username="ann", disk_name="data", job_id=UUID(int=1), size_gb=10)
    async with nats_client(nats_server.url) as client:
        try:
            await client.request(CLAIM_SUBJECT, msgspec.json.encode(asked), timeout=60)
        except nats.errors.NoRespondersError:
            return False
    return True


async def _lease(database: Database) -> int | None:
    """Number of the lease under which the one operation is worked; None when it is not."""
    lease = "SELECT lease FROM operations WHERE worked_until > clock_timestamp() AND lease > 0"
    number: int | None = await database.fetch_value(Statement(sa.text(lease)))
    return number


async def test_a_leader_lock_is_another_replicas_at_once(make_replica: Callable[..., Replica], dsn: str) -> None:
    async with opened(dsn) as database:
        first = await asyncio.to_thread(make_replica, GPUDEV_REPLICA="first")
        await eventually(lambda: _leaders(database), "the first reads events")
        await asyncio.to_thread(make_replica, GPUDEV_REPLICA="second")
        assert await _leaders(database) == {"first-session"}
        os.kill(first.pid, signal.SIGTERM)
        await eventually(lambda: "service_stopped" in first.log.read_text(), "its application has shut down")

        async def handed_over() -> bool:
            return await _leaders(database) == {"second-session"}

        with promised(3):
            await eventually(handed_over, "the second reads events")
        await ended(first)


async def _leaders(database: Database) -> set[str]:
    query = (
        "SELECT application_name FROM pg_locks JOIN pg_stat_activity USING (pid) "
        "WHERE locktype = 'advisory' AND granted AND datname = current_database() AND application_name LIKE '%-session'"
    )
    return {row[0] for row in await database.fetch_all(Statement(sa.text(query)))}


async def test_a_replica_outlives_its_database_and_is_ready_again_with_it(
    make_replica: Callable[..., Replica], postgres_server: PostgresServer
) -> None:
    replica = await asyncio.to_thread(make_replica)
    pid = replica.pid
    async with httpx.AsyncClient(base_url=replica.url, trust_env=False, timeout=60) as client:

        async def ready() -> bool:
            return (await client.get("/readyz")).status_code == 200

        assert await ready()
        postgres_server.process.kill()
        try:
            away = [(await client.get(path)).status_code for path in ("/readyz", "/livez")]
        finally:
            postgres_server.process.start()
        await eventually(ready, "it is ready again")
    assert away == [503, 200]
    assert (replica.running, replica.pid) == (True, pid)
