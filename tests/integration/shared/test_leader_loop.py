"""The loop of which one replica has the turns."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from shared.background import Loop
from shared.database import Database
from shared.leader_lock import LeaderLock, leader_loop
from tests.support.harness import END_SESSIONS, Harness, connected, eventually, running


class Replica:
    """Counts its turns."""

    def __init__(self, database: Database) -> None:
        self.turns = 0
        self.fails = False
        # whoever is silent for longer than a turn may take loses the lock: here nobody is, however slow the machine
        self.loop: Loop = leader_loop(
            "counting", self._turn, database=database, lock="test", period_seconds=0.05, turn_seconds=60.0
        )

    async def _turn(self) -> None:
        self.turns += 1
        if self.fails:
            raise RuntimeError("told to")


@asynccontextmanager
async def leading(replica: Replica) -> AsyncIterator[None]:
    """The replica runs, and has had a turn."""
    before = replica.turns
    async with running(replica.loop.run):
        await eventually(lambda: replica.turns > before, "it leads")
        yield


async def test_one_replica_has_the_turns_and_another_goes_on_when_it_ends(harness: Harness) -> None:
    first, second = Replica(harness.database), Replica(harness.database)
    async with leading(first):
        standby = asyncio.create_task(second.loop.run())
        seen = first.turns
        await eventually(lambda: first.turns >= seen + 5, "the first goes on")
        assert second.turns == 0
        assert second.loop.fault() is None, "who stands by is well"
    await eventually(lambda: second.turns > 0, "the second leads")
    standby.cancel()
    with pytest.raises(asyncio.CancelledError):
        await standby


async def test_a_leader_whose_turns_fail_goes_on_leading(harness: Harness) -> None:
    replica = Replica(harness.database)
    replica.fails = True
    async with leading(replica):
        await eventually(lambda: replica.turns >= 3, "it tries again")
        replica.fails = False


async def test_who_loses_it_with_the_connection_knows_at_once(harness: Harness, harness_dsn: str) -> None:
    first, second = LeaderLock(harness.database, "test"), LeaderLock(harness.database, "test")
    assert await first.held()
    assert not await second.held()
    async with connected(harness_dsn) as connection:
        await connection.fetch(END_SESSIONS)
    await eventually(second.held, "the server has ended it, too")
    assert not await first.held()
    second.release()
    await eventually(first.held, "it is free")
    assert (first.term, second.term) == (2, 1)
    first.release()
