"""A burst of jobs on the demo fleet: alone, with two replicas of everything, and with each process killed in turn."""

import asyncio
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.harness import running
from tests.support.load import FREE_AT_FIRST, VICTIMS, Burst, works
from tests.support.promises import promised
from tests.support.stack import LocalStack, running_stack, until, users

pytestmark = pytest.mark.long

BARE = {"GPUDEV_TOOLS_IMAGE": ""}
"""Pods without SSH start with far less work: for where many are started that nobody enters."""
NAMES = ("ann", "ben", "cid", "dot", "eve")


@pytest.mark.timeout(400)
async def test_forty_jobs_by_five_users_run_in_order_and_leave_nothing(stack: LocalStack, tmp_path: Path) -> None:
    async with users(stack, *NAMES) as members:
        burst = Burst(members, tmp_path, jobs=40)
        async with running(burst.watch_leases):
            await burst.submit()
            jobs = await burst.wait(seconds=180)
        await burst.check(stack, jobs)


@pytest.mark.timeout(400)
async def test_two_replicas_of_each_service_carry_the_same_load(tmp_path: Path) -> None:
    with running_stack(GPUDEV_REPLICAS="2", **BARE) as stack:
        async with users(stack, *NAMES) as members:
            burst = Burst(members, tmp_path, jobs=40)
            async with running(burst.watch_leases):
                await burst.submit()
                jobs = await burst.wait(seconds=180)
            # both found free GPUs, and the news of each came by its own replica
            await burst.check(stack, jobs, unordered=FREE_AT_FIRST)


@pytest.fixture(scope="module")
def battered_stack() -> Iterator[LocalStack]:
    """A stack whose processes are killed; not the one that other tests use."""
    with running_stack(**BARE) as stack:
        yield stack


@pytest.mark.timeout(400)
@pytest.mark.parametrize("victim", VICTIMS)
async def test_no_job_is_lost_or_run_twice_when_a_process_is_killed(
    battered_stack: LocalStack, tmp_path: Path, victim: str
) -> None:
    chance = random.Random(victim)
    async with users(battered_stack, *NAMES) as members:
        burst = Burst(members, tmp_path, jobs=12)

        async def kill() -> None:
            # in the midst: some of the jobs have run, others are not submitted yet
            await until(lambda: _ran(burst, chance.randint(1, 6)), "the moment of the kill", period=0.01)
            battered_stack.kill(victim)

        killing = asyncio.create_task(kill())
        async with running(burst.watch_leases):
            await burst.submit(attempts=300)
            await killing
            with promised(10):
                await until(lambda: works(members[0]), f"work after the death of {victim}", seconds=60)
            jobs = await burst.wait(seconds=120)
        # what was under way comes again seconds later, and the line cannot wait for what it has not heard of
        await burst.check(battered_stack, jobs, unordered=None)


async def _ran(burst: Burst, count: int) -> bool:
    return len(burst.runs()) >= count
