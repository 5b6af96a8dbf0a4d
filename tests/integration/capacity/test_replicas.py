"""Two replicas as processes of their own, killed while they schedule; PostgreSQL and NATS killed under them.

REPLICAS_SCALE=25 makes it 10,000 waiting jobs and 1,500 nodes (`make bench-deaths`).
"""

import asyncio
import os
import random
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from uuid import UUID

import asyncpg
import msgspec
import pytest

from shared.contracts.events import event_subject
from shared.contracts.jobs import JobSubmitted
from tests.support.capacity import NOW, ScriptedCluster, capacity_settings, cloud_event, scripted_cluster, submitted
from tests.support.harness import connected, eventually, nats_client
from tests.support.replica import Replica
from tests.support.servers import NatsServer, PostgresServer, ServerProcess

pytestmark = pytest.mark.slow

T4 = "g4dn.12xlarge"
SCALE = int(os.environ.get("REPLICAS_SCALE", "1"))
NODES_AT_ONCE, GPUS = 10 * SCALE, 4
BATCHES = 6
JOBS = BATCHES * NODES_AT_ONCE * GPUS + 160 * SCALE


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[tuple[ScriptedCluster, str]]:
    async with scripted_cluster(tmp_path) as found:
        yield found


@contextmanager
def replicas(count: int, directory: Path, **environment: str) -> Iterator[list[ServerProcess]]:
    """The service in processes of its own."""
    made = []
    for number in range(count):
        own = {**os.environ, **environment, "GPUDEV_REPLICA": f"r{number}"}
        made.append(Replica("capacity", directory / f"replica-{number}.log", own))
    try:
        for replica in made:
            replica.start()
        yield made
    finally:
        for replica in made:
            replica.kill()


async def leased(dsn: str) -> list[UUID] | None:
    """Jobs that hold GPUs, one entry for each GPU; None while the database is away."""
    try:
        connection = await asyncpg.connect(dsn, timeout=3)
        try:
            rows = await connection.fetch("SELECT job_id FROM leases")
        finally:
            await connection.close()
    except (OSError, asyncpg.PostgresError):
        return None
    return [row["job_id"] for row in rows]


@pytest.mark.timeout(180 + 30 * SCALE)
async def test_no_lease_is_doubled_and_no_entry_lost_whatever_dies(
    capacity_dsn: str,
    postgres_server: PostgresServer,
    nats_server: NatsServer,
    cluster: tuple[ScriptedCluster, str],
    tmp_path: Path,
) -> None:
    scripted, kubeconfig = cluster
    settings = capacity_settings()
    queue = [submitted(1, "t4", at=NOW + timedelta(seconds=number), instance_type=T4) for number in range(JOBS)]
    environment = {
        "GPUDEV_DATABASE_URL": capacity_dsn,
        "GPUDEV_NATS_URL": nats_server.service_url("capacity"),
        "GPUDEV_KUBECONFIG": kubeconfig,
        "GPUDEV_SECRET_KEYS": settings.secret_keys,
        "GPUDEV_WATCH_SECONDS": "2",
    }
    with replicas(2, tmp_path, **environment) as pair:
        await publish(nats_server, queue)
        await eventually(lambda: count_waiting(capacity_dsn, JOBS), "everybody is queued", seconds=40 + 10 * SCALE)
        victims = [pair[0], pair[1], postgres_server.process, pair[0], nats_server.process, pair[1]]
        chance = random.Random(5)
        for batch, victim in enumerate(victims):
            for number in range(NODES_AT_ONCE):
                await scripted.put_node(f"t4-{batch}-{number}", T4, GPUS)
            await asyncio.sleep(
                chance.uniform(0, 0.15 + 0.02 * (SCALE - 1))
            )  # the moment of the death, not a wait for anything
            victim.restart()  # in this thread: a server dies with the thread that started it
            count = (batch + 1) * NODES_AT_ONCE * GPUS
            await eventually(
                lambda count=count: holds(capacity_dsn, queue, count), f"{count} leases", seconds=30 + SCALE
            )


async def publish(server: NatsServer, queue: list[JobSubmitted]) -> None:
    async with nats_client(server.url) as client:
        stream = client.jetstream()
        for first in range(0, len(queue), 100):
            part = queue[first : first + 100]
            await asyncio.gather(
                *(stream.publish(event_subject(job), msgspec.json.encode(cloud_event(job, 1))) for job in part)
            )


async def count_waiting(dsn: str, wanted: int) -> bool:
    async with connected(dsn) as connection:
        found = await connection.fetchval("SELECT count(*) FROM places WHERE state = 'waiting' AND gpu_type = 't4'")
    return bool(found == wanted)


async def holds(dsn: str, queue: list[JobSubmitted], count: int) -> bool:
    """Whether so many GPUs are leased; then they are those of the first in the queue, each once."""
    jobs = await leased(dsn)
    if jobs is None or len(jobs) < count:
        return False
    assert sorted(jobs) == sorted(job.job_id for job in queue[:count]), "an entry was lost, or a lease doubled"
    return True
