"""Jobs that need no running container: on the simulator, and on a real cluster when GPUDEV_KUBECONFIG names one."""

import asyncio
import os
from collections.abc import AsyncIterator, Iterator

import pytest

from tests.support.load import cluster_objects
from tests.support.promises import promised
from tests.support.stack import LocalStack, running_stack, until, users

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def cluster_stack() -> Iterator[LocalStack]:
    """A stack on the cluster under test."""
    given = os.environ.get("GPUDEV_KUBECONFIG")
    with running_stack(**({"GPUDEV_KUBECONFIG": given} if given else {})) as stack:
        yield stack


@pytest.fixture(autouse=True)
async def left_as_found(cluster_stack: LocalStack) -> AsyncIterator[None]:
    """The next test, whichever it is, finds an empty cluster of which every GPU is free."""
    yield
    async with users(cluster_stack, "observer") as (observer,):

        async def given_back() -> bool:
            found = await observer.availability()
            return all(entry["in_use"] == entry["queued"] == 0 for entry in found.values())

        await until(lambda: nothing_left(cluster_stack), "nothing left")
        await until(given_back, "every GPU given back", seconds=60)


async def nothing_left(stack: LocalStack) -> bool:
    return not await asyncio.to_thread(cluster_objects, stack)


async def test_the_demo_fleet_is_seen(cluster_stack: LocalStack) -> None:
    async with users(cluster_stack, "alice") as (alice,):

        async def all_there() -> bool:
            availability = await alice.availability()
            return {kind: entry["total"] for kind, entry in availability.items()} == {"h100": 16, "a100": 16}

        await until(all_there, "the demo fleet's GPUs")
        status = (await alice.client.get("/v1/cluster/status")).json()
        assert (status["total_gpus"], status["available_gpus"], status["in_use_gpus"]) == (32, 32, 0)


async def test_an_active_job_is_cancelled_and_leaves_nothing(cluster_stack: LocalStack) -> None:
    async with users(cluster_stack, "alice") as (alice,):
        job_id = await alice.submit(gpu_count=8)
        active = await alice.wait(job_id, "active")
        assert active["node_port"]
        assert (await alice.availability())["h100"]["in_use"] == 8
        names = await asyncio.to_thread(cluster_objects, cluster_stack)
        assert names == [active["pod_name"]] * 3
        await alice.client.post(f"/v1/jobs/{job_id}/cancel")
        await alice.wait(job_id, "cancelled", seconds=60)
        await until(lambda: nothing_left(cluster_stack), "nothing left")

        async def given_back() -> bool:
            return (await alice.availability())["h100"]["in_use"] == 0

        await until(given_back, "its GPUs given back")


async def test_a_job_whose_time_is_up_expires_and_leaves_nothing(cluster_stack: LocalStack) -> None:
    async with users(cluster_stack, "alice") as (alice,):
        job_id = await alice.submit(gpu_count=4, instance_type="p4d.24xlarge")
        await alice.wait(job_id, "active")
        # the clock moved: the shortest job would take five minutes
        await cluster_stack.execute("jobs", "UPDATE jobs SET expires_at = now(), due_at = now() WHERE id = $1", job_id)
        ended = await alice.wait(job_id, "expired", seconds=60)
        assert ended["exit_code"] is None
        await until(lambda: nothing_left(cluster_stack), "nothing left")


async def test_a_pod_deleted_by_an_operator_ends_its_job_with_a_reason(cluster_stack: LocalStack) -> None:
    async with users(cluster_stack, "alice") as (alice,):
        job_id = await alice.submit(gpu_count=2)
        active = await alice.wait(job_id, "active")
        await asyncio.to_thread(cluster_stack.cluster_api().delete_namespaced_pod, active["pod_name"], "gpudev")
        failed = await alice.wait(job_id, "failed", seconds=60)
        assert "deleted" in failed["failure_reason"]
        await until(lambda: nothing_left(cluster_stack), "nothing left")


async def test_a_cordoned_node_is_not_available_and_comes_back(cluster_stack: LocalStack) -> None:
    async with users(cluster_stack, "alice") as (alice,):
        nodes = (await alice.client.get("/v1/gpu/availability")).json()["availability"]["h100"]["nodes"]
        api = cluster_stack.cluster_api()

        async def shows(total: int) -> bool:
            return (await alice.availability())["h100"]["total"] == total

        async def becomes(total: int, *, unschedulable: bool) -> None:
            body = {"spec": {"unschedulable": unschedulable}}
            with promised(5):
                await asyncio.to_thread(api.patch_node, nodes[0]["name"], body)
                await until(lambda: shows(total), f"unschedulable={unschedulable} seen")

        try:
            await becomes(8, unschedulable=True)
        finally:
            await becomes(16, unschedulable=False)


async def test_the_last_waiting_job_starts_when_gpus_come_free(cluster_stack: LocalStack) -> None:
    async with users(cluster_stack, "alice", "bob") as (alice, bob):
        holding = [await alice.submit(gpu_count=8) for _ in range(2)]
        for job_id in holding:
            await alice.wait(job_id, "active")
        waiting = await bob.submit(gpu_count=8)

        async def told() -> bool:
            job = await bob.job(waiting)
            return job["status"] == "queued" and job["queue_position"] == 1

        await until(told, "its place in the line")
        await alice.client.post(f"/v1/jobs/{holding[0]}/cancel")
        await bob.wait(waiting, "active", seconds=60)
        await alice.client.post(f"/v1/jobs/{holding[1]}/cancel")
        await bob.client.post(f"/v1/jobs/{waiting}/cancel")
        for user, job_id in ((alice, holding[0]), (alice, holding[1]), (bob, waiting)):
            await user.wait(job_id, "cancelled", seconds=60)
        await until(lambda: nothing_left(cluster_stack), "nothing left")
