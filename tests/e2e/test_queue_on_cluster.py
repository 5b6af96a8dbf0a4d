"""The line as users see it, on the simulator, and on a real cluster when GPUDEV_KUBECONFIG names one."""

import asyncio
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from typing import Any

import pytest

from tests.support.promises import promised
from tests.support.stack import ApiUser, LocalStack, running_stack, until, users

pytestmark = pytest.mark.timeout(240)

A100 = "p4d.24xlarge"
NOTICED_SECONDS = 2.0
"""Within which what Kubernetes says is seen."""


@pytest.fixture(scope="module")
def cluster_stack() -> Iterator[LocalStack]:
    """A stack of its own on the cluster under test."""
    given = os.environ.get("GPUDEV_KUBECONFIG")
    with running_stack(**({"GPUDEV_KUBECONFIG": given} if given else {})) as stack:
        yield stack


@asynccontextmanager
async def two_users(stack: LocalStack) -> AsyncIterator[tuple[ApiUser, ApiUser]]:
    """Who fills the cluster and who waits; all their jobs are cancelled and gone at the end."""
    async with users(stack, "alice", "bob") as (alice, bob):
        yield alice, bob
        for user in (bob, alice):  # those who wait first: else they would start
            for job in (await user.client.get("/v1/jobs?limit=100")).json()["jobs"]:
                await user.client.post(f"/v1/jobs/{job['job_id']}/cancel")

        async def all_free() -> bool:
            found = await alice.availability()
            return all(entry["in_use"] == entry["queued"] == 0 for entry in found.values())

        await until(all_free, "everything given back", seconds=60)


async def explain(user: ApiUser, job_id: str) -> dict[str, Any]:
    answer = await user.client.get(f"/v1/jobs/{job_id}/explain")
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


async def told_positions(user: ApiUser, line: list[str]) -> list[int | None]:
    return [(await user.job(job_id))["queue_position"] for job_id in line]


async def starts(user: ApiUser, line: list[str]) -> list[datetime]:
    """When each is expected to start, once all are."""

    async def told() -> list[str | None]:
        found = [(await explain(user, job_id))["estimated_start_time"] for job_id in line]
        return found if None not in found else []

    return [datetime.fromisoformat(text) for text in await until(told, "an estimate of each")]


async def sees(user: ApiUser, gpu_type: str, *, seconds: float = 30.0, **numbers: int) -> dict[str, Any]:
    """Availability of a type once it says these numbers."""

    async def matches() -> dict[str, Any] | None:
        entry = (await user.availability())[gpu_type]
        return entry if all(entry[name] == value for name, value in numbers.items()) else None

    found: dict[str, Any] = await until(matches, f"{gpu_type} {numbers}", seconds=seconds, period=0.05)
    return found


async def reason_of(user: ApiUser, job_id: str, text: str) -> None:
    async def says() -> bool:
        job = await user.job(job_id)
        return job["status"] == "queued" and text in (job["status_reason"] or "")

    await until(says, f"it waits since {text!r}")


async def is_bound(stack: LocalStack, pod: str) -> bool:
    found = await asyncio.to_thread(stack.cluster_api().read_namespaced_pod, pod, "default")
    return bool(found.spec.node_name)


def cordon(stack: LocalStack, node: str, *, closed: bool) -> None:
    stack.cluster_api().patch_node(node, {"spec": {"unschedulable": closed}})


async def test_positions_and_estimates_fall_as_jobs_end(cluster_stack: LocalStack) -> None:
    # jobs of the tests before, which hardly ran, would have estimates believe that these end as soon
    await cluster_stack.execute("capacity", "DELETE FROM runs")
    async with two_users(cluster_stack) as (alice, bob):
        running = [await alice.submit(gpu_count=8) for _ in range(2)]
        for job_id in running:
            await alice.wait(job_id, "active")
        line = [await bob.submit(gpu_count=8) for _ in range(10)]

        async def in_their_order(*, started: int = 0) -> bool:
            return await told_positions(bob, line[started:]) == list(range(1, 11 - started))

        await until(in_their_order, "ten queued, in the order of their submission")

        async def one_after_the_other() -> list[datetime]:
            # each is told by an estimate of its own, and an event may come between two of them
            found = await starts(bob, line)
            return found if found == sorted(found) else []

        first = await until(one_after_the_other, "estimates in the order of the queue")
        # two start at a time, each for six minutes
        assert timedelta(minutes=20) < first[9] - first[0] < timedelta(minutes=40)
        last = await explain(bob, line[9])
        assert (last["queue_position"], last["jobs_ahead"], last["gpus_ahead"]) == (10, 9, 72)
        assert last["estimated_start_time"] <= last["estimated_start_time_p90"]

        for count, job_id in enumerate(running, start=1):
            await alice.client.post(f"/v1/jobs/{job_id}/cancel")
            await bob.wait(line[count - 1], "active", seconds=60)
            await until(lambda count=count: in_their_order(started=count), "all have moved up")  # type: ignore[misc]

        async def sooner() -> bool:
            moved = await starts(bob, line[2:])
            earlier = all(now < before for now, before in zip(moved, first[2:], strict=True))
            return earlier and moved[7] < first[9] - timedelta(minutes=3)

        await until(sooner, "all start earlier than they were to, the last by minutes")


async def test_a_cordon_is_seen_and_when_it_ends_the_line_moves_by_itself(cluster_stack: LocalStack) -> None:
    async with two_users(cluster_stack) as (_, bob):
        nodes = [node["name"] for node in (await sees(bob, "a100", total=16))["nodes"]]
        try:
            for node, total in zip(nodes, (8, 0), strict=True):
                with promised(NOTICED_SECONDS):
                    await asyncio.to_thread(cordon, cluster_stack, node, closed=True)
                    await sees(bob, "a100", total=total)
            waiting = await bob.submit(gpu_count=8, instance_type=A100)
            await reason_of(bob, waiting, "ready and schedulable")
            assert (await explain(bob, waiting))["estimated_start_time"] is None
            await asyncio.to_thread(cordon, cluster_stack, nodes[1], closed=False)
            await bob.wait(waiting, "active")
            entry = await sees(bob, "a100", total=8, in_use=8)
            assert [node["in_use"] for node in entry["nodes"]] == [0, 8]
        finally:
            for node in nodes:
                await asyncio.to_thread(cordon, cluster_stack, node, closed=False)


async def test_gpus_of_a_foreign_pod_are_not_there_for_jobs_until_it_is_gone(cluster_stack: LocalStack) -> None:
    async with two_users(cluster_stack) as (alice, bob):
        node = (await sees(bob, "a100", available=16))["nodes"][0]["name"]
        api = cluster_stack.cluster_api()
        limits = {"nvidia.com/gpu": "1"}
        pod = {
            "metadata": {"name": "foreign"},
            "spec": {
                "nodeSelector": {"kubernetes.io/hostname": node},
                "tolerations": [{"operator": "Exists"}],
                "containers": [{"name": "main", "image": "busybox:1", "resources": {"limits": limits}}],
            },
        }
        try:
            await asyncio.to_thread(api.create_namespaced_pod, "default", pod)
            await until(lambda: is_bound(cluster_stack, "foreign"), "Kubernetes has chosen its node")
            with promised(NOTICED_SECONDS):
                await sees(bob, "a100", available=15, in_use=1, max_placeable=8)
            elsewhere = await alice.submit(gpu_count=8, instance_type=A100)
            await alice.wait(elsewhere, "active")
            waiting = await bob.submit(gpu_count=8, instance_type=A100)
            await reason_of(bob, waiting, "to come free")
            small = await alice.submit(gpu_count=4, instance_type=A100)
            await alice.wait(small, "active")
            entry = await sees(bob, "a100", in_use=13, max_placeable=3)
            assert {one["name"]: one["in_use"] for one in entry["nodes"]}[node] == 5
            assert (await bob.job(waiting))["status"] == "queued"
            await alice.client.post(f"/v1/jobs/{small}/cancel")
            await sees(bob, "a100", in_use=9, seconds=60)
        finally:
            await asyncio.to_thread(api.delete_namespaced_pod, "foreign", "default", grace_period_seconds=0)
        await bob.wait(waiting, "active")
        await sees(bob, "a100", in_use=16)
