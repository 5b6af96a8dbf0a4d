"""A job is cancelled at every step of its preparing while a process dies: nothing of it stays anywhere."""

import asyncio
import random
from collections.abc import Iterator
from functools import partial

import httpx
import pytest
from urllib3.exceptions import HTTPError

from tests.support.load import FLEET_GPUS, VICTIMS, cluster_objects, cluster_volumes, works
from tests.support.stack import ApiUser, LocalStack, running_stack, until, users

pytestmark = pytest.mark.slow

UNPULLABLE = "docker.io/library/does-not-exist:1"
CANCELS = 3
"""Instants of each process's death."""
PREPARING_SECONDS, CANCELLING_SECONDS = 0.2, 0.06
"""What the making of the pod, and the taking away of all, last about: instants are drawn from them."""


@pytest.fixture(scope="module")
def battered_stack() -> Iterator[LocalStack]:
    """A stack whose processes are killed."""
    with running_stack() as stack:
        yield stack


@pytest.mark.timeout(600)
@pytest.mark.parametrize("victim", VICTIMS)
async def test_a_job_cancelled_at_any_step_of_preparing_leaves_nothing_whoever_dies(
    battered_stack: LocalStack, victim: str
) -> None:
    """Incident 9. Steps are what its owner sees, until a run has no more of them before the job is active."""
    async with users(battered_stack, "alice") as (alice,):
        for step in range(20):
            disk = f"{victim}-{step}"
            job_id = await alice.submit(attempts=50, disk_name=disk, github_user="alice", disk_size_gb=10)
            if not await reached(alice, job_id, step):
                assert step > 1, "a job that had no steps would pass as well"
                await alice.client.post(f"/v1/jobs/{job_id}/cancel")
                return
            died = battered_stack.parts()[victim].pid
            battered_stack.kill(victim)
            await cancelled(alice, job_id)
            await all_is_back(battered_stack, alice, victim, died)
            await nothing_stays(battered_stack, alice, job_id, disk)
    pytest.fail("the steps do not end")


@pytest.mark.timeout(240)
@pytest.mark.parametrize("victim", VICTIMS)
async def test_a_cancel_that_was_taken_is_carried_out_whoever_dies_then(
    battered_stack: LocalStack, victim: str
) -> None:
    """Incident 9. Its image cannot be pulled, so that the job is preparing for as long as it is wanted to be."""
    chance = random.Random(victim)
    async with users(battered_stack, "alice") as (alice,):
        for number in range(CANCELS):
            disk = f"{victim}-taken-{number}"
            job_id = await alice.submit(attempts=50, image=UNPULLABLE, disk_name=disk, disk_size_gb=10)
            await alice.wait(job_id, "preparing")
            await asyncio.sleep(chance.uniform(0, PREPARING_SECONDS))
            died = battered_stack.parts()[victim].pid
            await cancelled(alice, job_id)
            await asyncio.sleep(chance.uniform(0, CANCELLING_SECONDS))
            battered_stack.kill(victim)
            await all_is_back(battered_stack, alice, victim, died)
            await nothing_stays(battered_stack, alice, job_id, disk)


async def all_is_back(stack: LocalStack, user: ApiUser, victim: str, died: int) -> None:
    await until(partial(lives_again, stack, victim, died), f"{victim} is back")
    await until(lambda: works(user), "all services answer")


async def lives_again(stack: LocalStack, victim: str, died: int) -> bool:
    return victim in stack.parts() and stack.parts()[victim].pid != died


async def reached(user: ApiUser, job_id: str, step: int) -> bool:
    """Return at the step of this number; False: the job was active before it."""
    seen: list[tuple[str, str | None]] = []
    while True:
        job = await user.job(job_id)
        now = (job["status"], job["current_detailed_status"])
        if now not in seen:
            seen.append(now)
        if job["status"] == "active":
            return False
        assert job["status"] in {"pending", "queued", "preparing"}, job
        if len(seen) > step:
            return True


async def cancelled(user: ApiUser, job_id: str) -> None:
    """Ask until it is taken; who has died comes back meanwhile."""

    async def taken() -> bool:
        return (await user.client.post(f"/v1/jobs/{job_id}/cancel")).status_code == httpx.codes.OK

    await until(taken, "the cancel is taken", seconds=30, period=0.05)


async def nothing_stays(stack: LocalStack, user: ApiUser, job_id: str, disk: str) -> None:
    """Status, GPUs, cluster and disk are as if the job had never been."""
    assert (await user.wait(job_id, "cancelled"))["status"] == "cancelled"

    last: dict[str, object] = {}

    async def as_before() -> bool:
        last["free GPUs"] = await user.free()
        try:
            last["in the cluster"] = await asyncio.to_thread(cluster_objects, stack)
            last["volumes"] = await asyncio.to_thread(cluster_volumes, stack)
        except HTTPError:  # it does not listen yet
            return False
        last["disk"] = (await user.client.get(f"/v1/disks/{disk}")).json()
        left = last["in the cluster"] or last["volumes"] or last["disk"].get("in_use") is not False
        return last["free GPUs"] == FLEET_GPUS and not left

    try:
        await until(as_before, "all is as before", seconds=30)
    except AssertionError as error:
        raise AssertionError(f"{error}: {last}") from error
    assert (await user.job(job_id))["status"] == "cancelled"
