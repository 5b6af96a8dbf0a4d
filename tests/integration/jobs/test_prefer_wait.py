"""Answers that `Prefer: wait` holds, with Kubernetes away: they need none."""

import asyncio
from typing import Any
from uuid import uuid4

import pytest

from services.jobs.operations.cancel import cancel_job
from services.jobs.operations.wait import await_job
from tests.support.harness import eventually
from tests.support.jobs import Client, JobsWorld, body, later


@pytest.fixture
async def world(jobs_without_cluster: JobsWorld) -> JobsWorld:
    return jobs_without_cluster


async def test_a_held_cancel_is_answered_when_the_job_has_ended(world: JobsWorld, client: Client) -> None:
    job_id = await world.submit(client)
    answer = await client.post(f"/v1/jobs/{job_id}/cancel", headers={"Prefer": "wait=20"})
    assert (answer.json()["status"], answer.headers["preference-applied"]) == ("succeeded", "wait=20")
    assert "Cancellation request submitted (message ID: " in answer.json()["message"]


async def test_a_held_extension_is_answered_at_once(world: JobsWorld, client: Client) -> None:
    job_id = await world.submit_active(client)
    hours = {"extension_hours": 1}
    answer = await client.post(f"/v1/jobs/{job_id}/extend", json=hours, headers={"Prefer": "wait=20"})
    assert (answer.json()["status"], answer.headers["preference-applied"]) == ("succeeded", "wait=20")


async def test_an_outcome_that_does_not_come_in_time_is_still_requested(world: JobsWorld, client: Client) -> None:
    job_id = await world.submit_active(client)
    answer = await client.post(f"/v1/jobs/{job_id}/cancel", headers={"Prefer": "wait=1"})
    assert (answer.json()["status"], answer.headers["preference-applied"]) == ("requested", "wait=1")


@pytest.mark.parametrize("prefer", ["wait=abc", "wait", "return=minimal", "wait=-4"])
async def test_a_preference_that_is_not_understood_is_ignored(world: JobsWorld, client: Client, prefer: str) -> None:
    job_id = await world.submit_active(client)
    answer = await client.post(f"/v1/jobs/{job_id}/cancel", headers={"Prefer": prefer})
    assert (answer.status_code, answer.json()["status"]) == (200, "requested")
    assert "preference-applied" not in answer.headers


async def test_a_held_answer_is_woken_by_another_replica_and_holds_no_connection(
    world: JobsWorld, client: Client
) -> None:
    """Twelve wait on a pool of one connection; what ends their wait happens elsewhere and comes as an event."""
    async with world.service(database_pool_size=1) as waiting, world.service():
        jobs = [await world.submit_active(client) for _ in range(12)]
        held = [
            asyncio.create_task(waiting.post(f"/v1/jobs/{job_id}/cancel", headers={"Prefer": "wait=30"}))
            for job_id in jobs
        ]

        async def all_asked() -> bool:
            return all([len(await world.announced(job_id)) == 2 for job_id in jobs])

        await eventually(all_asked, "all have asked")
        assert (await waiting.get("/v1/jobs")).status_code == 200
        assert not any(task.done() for task in held)
        for job_id in jobs:
            await world.find_pod_gone(job_id)
        answers = await asyncio.wait_for(asyncio.gather(*held), 25)
    assert {answer.json()["status"] for answer in answers} == {"succeeded"}


async def test_a_held_submission_tells_when_the_job_has_left_the_queue(world: JobsWorld, client: Client) -> None:
    wait = {"Prefer": "wait=30", "Idempotency-Key": "k"}
    held = asyncio.create_task(client.post("/v1/jobs/submit", json=body(), headers=wait))

    async def there() -> list[Any]:
        return list((await client.get("/v1/jobs")).json()["jobs"])

    [job] = await eventually(there, "the job is there")
    await cancel_job(user_id=1, job_id=job["job_id"], key=None, now=later(), context=world.context())
    answer = await asyncio.wait_for(held, 25)
    assert (answer.json()["status"], answer.headers["preference-applied"]) == ("cancelled", "wait=30")
    again = await client.post("/v1/jobs/submit", json=body(), headers=wait)
    assert (again.json(), again.headers["idempotent-replayed"]) == (answer.json(), "true")


async def test_a_service_that_stops_ends_the_waits(world: JobsWorld) -> None:
    context = world.context()

    waiting = asyncio.create_task(await_job(uuid4(), lambda _: False, 30, context))
    await eventually(lambda: context.wake_ups.waiting, "it waits")
    await context.wake_ups.close()
    assert await asyncio.wait_for(waiting, 25) is None
