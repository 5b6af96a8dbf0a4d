"""Events about one thing take effect in their order while replicas, the broker and connections die."""

import asyncio
import itertools
import random
import signal
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest

from shared.errors import DatabaseUnavailable
from tests.support.harness import Harness, connected, eventually, running
from tests.support.servers import NatsServer
from tests.support.telling_replica import TABLE, start_replica

DEATHS = 16
PACE_SECONDS = 0.02
"""Between two events: some are always under way."""
_CUT = """
    SELECT pg_terminate_backend(pid) FROM pg_stat_activity
    WHERE datname = current_database() AND usename = current_user AND pid <> pg_backend_pid() AND pid <> $1
"""


class Replicas:
    """Two of them; one that is killed is followed by a new one."""

    def __init__(self, dsn: str, nats_url: str) -> None:
        self._names = itertools.count(1)
        self._start = lambda: start_replica(dsn, nats_url, f"replica-{next(self._names)}")
        self._processes = [self._start(), self._start()]

    def kill(self, place: int) -> None:
        """One dies."""
        _end(self._processes[place])
        self._processes[place] = self._start()

    async def hang(self, place: int, seconds: float) -> None:
        """One does nothing for a while."""
        self._processes[place].send_signal(signal.SIGSTOP)
        await asyncio.sleep(seconds)
        self._processes[place].send_signal(signal.SIGCONT)

    def end(self) -> None:
        """Both die."""
        for process in self._processes:
            _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()


@asynccontextmanager
async def replicas(dsn: str, nats_url: str) -> AsyncIterator[Replicas]:
    """Two that read."""
    two = Replicas(dsn, nats_url)
    try:
        yield two
    finally:
        two.end()


async def publish_until(harness: Harness, ended: asyncio.Event) -> int:
    """Events one after the other, whatever dies; how many."""
    version = 1
    while not ended.is_set():
        with suppress(DatabaseUnavailable):
            await harness.publish("one", version)
            version += 1
        await asyncio.sleep(PACE_SECONDS)
    return version - 1


def deaths(
    two: Replicas, chance: random.Random, nats_server: NatsServer, cut: Callable[[], Awaitable[Any]]
) -> dict[str, Callable[[], Awaitable[Any]]]:
    """What may happen. Most of all connections to PostgreSQL are cut: the lock of who reads goes with one of them."""

    async def restart_nats() -> None:
        nats_server.process.restart()

    return {
        "a replica is killed": lambda: asyncio.to_thread(two.kill, chance.randrange(2)),
        "a replica hangs": lambda: two.hang(chance.randrange(2), chance.uniform(0.5, 2.5)),
        "the broker is killed": restart_nats,
        "connections are cut": cut,
        "connections are cut again": cut,
        "and again": cut,
    }


@pytest.mark.long
@pytest.mark.timeout(300)
async def test_events_keep_their_order_while_those_who_take_them_die(
    harness: Harness, harness_dsn: str, nats_server: NatsServer
) -> None:
    chance = random.Random(11)
    ended = asyncio.Event()
    async with connected(harness_dsn) as connection, replicas(harness_dsn, nats_server.url) as two:
        await connection.execute(TABLE)

        async def told() -> list[Any]:
            return list(await connection.fetch("SELECT version, told_by FROM told ORDER BY id"))

        async def cut() -> None:
            async with connected(harness_dsn) as other:
                await other.fetch(_CUT, connection.get_server_pid())

        async def all_told() -> bool:
            # one more may be there than was counted: its commit held, and the answer was lost
            return len(await told()) >= count

        async with running(harness.relay.loop.run):
            publishing = asyncio.create_task(publish_until(harness, ended))
            await eventually(told, "a replica reads")
            every = deaths(two, chance, nats_server, cut)
            names = list(every)
            # each of them once at least
            for name in chance.sample([*names, *chance.choices(names, k=DEATHS - len(names))], DEATHS):
                await every[name]()
                await asyncio.sleep(chance.choice([0.1, 0.3, 1.0, 3.0, 6.0]))
            ended.set()
            count = await publishing
            await eventually(all_told, "every event took effect")
        overtaken = [(tuple(one), tuple(other)) for one, other in itertools.pairwise(await told()) if other[0] < one[0]]
        assert not overtaken
