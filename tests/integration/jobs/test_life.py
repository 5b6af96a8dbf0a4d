"""The life of a job on a cluster, with capacity played by the test."""

from collections.abc import AsyncIterator
from uuid import UUID

import pytest

from tests.support.ground import eventually
from tests.support.jobs import Client, JobsWorld, until_status

ENDED = ("completed", "failed", "cancelled", "expired")


@pytest.fixture
async def world(jobs_world: JobsWorld) -> JobsWorld:
    return jobs_world


@pytest.fixture
async def client(world: JobsWorld) -> AsyncIterator[Client]:
    async with world.service() as client:
        yield client


async def test_a_granted_job_becomes_active_with_its_time_box(world: JobsWorld, client: Client) -> None:
    job_id = await world.submit(client, duration_hours=0.5)
    await world.grant(job_id)
    job = await until_status(client, job_id, "active")
    assert job["expires_at"] > job["launched_at"] > job["created_at"]
    assert (job["pod_name"], job["node_ip"] is not None) == (f"gpu-dev-{job_id}-1", True)
    assert job["node_port"] >= 30000
    assert await world.told(job_id) == ["submitted", "preparing", "started"]
    assert await world.history(job_id) == ["queued", "preparing", "active"]
    assert sorted(kind for kind, _ in await world.objects(job_id)) == ["pods", "secrets", "services"]


async def test_a_cancelled_active_job_ends_when_nothing_of_it_is_left(world: JobsWorld, client: Client) -> None:
    job_id = await world.submit(client)
    await world.grant(job_id)
    await until_status(client, job_id, "active")
    assert (await client.post(f"/v1/jobs/{job_id}/cancel")).status_code == 200
    await until_status(client, job_id, "cancelled", seconds=40)
    assert await world.told(job_id) == ["submitted", "preparing", "started", "cancel_requested", "ended"]
    assert "pods" not in {kind for kind, _ in await world.objects(job_id)}
    await eventually(lambda: nothing_left(world, job_id), "service and secret are gone")


async def nothing_left(world: JobsWorld, job_id: UUID) -> bool:
    return not await world.objects(job_id)
