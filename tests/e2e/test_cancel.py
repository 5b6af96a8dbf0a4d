"""A job is cancelled at every step of its preparing while a process dies: nothing of it stays anywhere."""

import asyncio
from collections.abc import Iterator
from functools import partial

import httpx
import pytest
from urllib3.exceptions import HTTPError

from tests.support.load import FLEET_GPUS, cluster_objects, works
from tests.support.stack import ApiUser, LocalStack, running_stack, until, users

pytestmark = pytest.mark.slow

VICTIMS = ("auth-1", "jobs-1", "disks-1", "capacity-1", "postgres", "nats", "traefik", "cluster")


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
            await until(partial(lives_again, battered_stack, victim, died), f"{victim} is back")
            await until(lambda: works(alice), "all services answer")
            await nothing_stays(battered_stack, alice, job_id, disk)
    pytest.fail("the steps do not end")


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
        except HTTPError:  # it does not listen yet
            return False
        last["disk"] = (await user.client.get(f"/v1/disks/{disk}")).json()
        return last["free GPUs"] == FLEET_GPUS and not last["in the cluster"] and last["disk"].get("in_use") is False

    try:
        await until(as_before, "all is as before", seconds=30)
    except AssertionError as error:
        raise AssertionError(f"{error}: {last}") from error
    assert (await user.job(job_id))["status"] == "cancelled"
