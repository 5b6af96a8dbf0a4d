"""A cluster that hangs, or is slow, in several things at once: the steps of a pass never add up past its time."""

from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

import pytest

from tests.support.harness import eventually
from tests.support.jobs import Client, JobsWorld, cluster_faults, new_disk_claimed, until_status
from tests.support.promises import Stopwatch
from tests.support.tools_pods import key_pages

pytestmark = pytest.mark.timeout(240)
TALKS = "echo one; trap 'exit 0' TERM; while :; do sleep 0.05; done"
DELETED_WITHIN_SECONDS = 15.0


@pytest.fixture
async def world(jobs_world: JobsWorld) -> AsyncIterator[JobsWorld]:
    async with key_pages(jobs_world), jobs_world.disks_answering(new_disk_claimed()):
        yield jobs_world


async def pods(world: JobsWorld, job_id: UUID) -> list[Any]:
    return [meta for kind, meta in await world.objects(job_id) if kind == "pods"]


async def started(world: JobsWorld, client: Client, **changes: Any) -> UUID:
    job_id = await world.submit(client, disk_name="data", **changes)
    await world.grant(job_id)
    return job_id


@pytest.mark.parametrize("logs_answered", [0, 1])
async def test_a_kubelet_that_hangs_for_logs_and_exec_keeps_no_pod_alive(world: JobsWorld, logs_answered: int) -> None:
    """As many requests of the log as are told are answered first: what is stored before, and what comes after."""
    async with world.service(grace_seconds=3) as client:
        job_id = await started(world, client, command=TALKS)
        await until_status(client, job_id, "active")
        pod = f"/pods/gpu-dev-{job_id}-1"
        answered = {"path": f"{pod}/log$", "times": logs_answered}
        with cluster_faults(answered, {"path": f"{pod}/(log|exec)$", "hang": True}):
            watch = Stopwatch()
            await client.post(f"/v1/jobs/{job_id}/cancel")

            async def deleted() -> bool:
                return all(meta.deletion_timestamp for meta in await pods(world, job_id))

            await eventually(deleted, "the pod is being deleted")
            assert watch.seconds() < DELETED_WITHIN_SECONDS
            await until_status(client, job_id, "cancelled")


async def test_a_job_with_a_disk_comes_and_goes_however_slow_each_answer_is(world: JobsWorld) -> None:
    objects = "^/api/v1/(persistentvolumes|namespaces/jobs-[^/]+/[^/]+)(/|$)"
    slow = {"path": objects, "watch": False, "seconds": 1.5}
    async with world.service(grace_seconds=1) as client:
        with cluster_faults(slow):
            job_id = await started(world, client, command=TALKS)
            await until_status(client, job_id, "active")
            await client.post(f"/v1/jobs/{job_id}/cancel")
            await until_status(client, job_id, "cancelled")
