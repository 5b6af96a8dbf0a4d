"""A job's place in the queue, as its owner and the operators see it; capacity is played by the test."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import msgspec
import pytest

from services.jobs.domain.facts import QueueMoved
from services.jobs.operations.transition import QueueMove, apply_queue_moves
from shared.contracts.capacity import EXPLAIN_SUBJECT, ExplainRequest, Explanation, JobQueued, Sooner
from shared.contracts.jobs import JobPrioritised
from tests.support.harness import flushed
from tests.support.jobs import Client, JobsWorld, body

NOW = datetime(2026, 1, 20, 18, 30, tzinfo=UTC)


@pytest.fixture
async def world(jobs_without_cluster: JobsWorld) -> JobsWorld:
    return jobs_without_cluster


@asynccontextmanager
async def capacity_explaining(world: JobsWorld, explanation: Explanation) -> AsyncIterator[list[ExplainRequest]]:
    asked: list[ExplainRequest] = []

    async def answer(message: Any) -> None:
        asked.append(msgspec.json.decode(message.data, type=ExplainRequest))
        await message.respond(msgspec.json.encode(explanation))

    subscription = await world.broker.client.subscribe(EXPLAIN_SUBJECT, cb=answer)
    await flushed(world.broker.client)
    yield asked
    await subscription.unsubscribe()


async def test_the_owner_is_told_why_his_job_waits_and_what_would_start_sooner(
    world: JobsWorld, client: Client
) -> None:
    job_id = await world.submit(client)
    sooner = Sooner(gpu_count=4, gpu_type="h100", max_duration_seconds=5400, text="4 GPUs instead of 8: now")
    found = Explanation(
        waiting=True,
        position=3,
        jobs_ahead=2,
        gpus_ahead=9,
        priority=5,
        estimated_start_at=NOW,
        estimated_start_p90_at=NOW,
        reason="Waiting for the jobs ahead of it",
        sooner=(sooner,),
    )
    async with capacity_explaining(world, found) as asked:
        answer = await client.get(f"/v1/jobs/{str(job_id)[:8]}/explain")
    assert [request.job_id for request in asked] == [job_id]
    assert answer.json() == {
        "job_id": str(job_id),
        "status": "queued",
        "waiting": True,
        "reason": "Waiting for the jobs ahead of it",
        "queue_position": 3,
        "jobs_ahead": 2,
        "gpus_ahead": 9,
        "priority": 5,
        "estimated_start_time": "2026-01-20T18:30:00Z",
        "estimated_start_time_p90": "2026-01-20T18:30:00Z",
        "would_start_sooner": [
            {
                "gpu_count": 4,
                "gpu_type": "h100",
                "max_duration_hours": 1.5,
                "estimated_start_time": None,
                "text": "4 GPUs instead of 8: now",
            }
        ],
    }


async def test_nobody_is_told_of_anothers_job_and_capacity_is_not_asked(world: JobsWorld, client: Client) -> None:
    job_id = await world.submit(client)
    async with capacity_explaining(world, Explanation(waiting=False)) as asked, world.service("mallory") as other:
        theirs = await other.get(f"/v1/jobs/{job_id}/explain")
        missing = await other.get(f"/v1/jobs/{uuid4()}/explain")
    assert (theirs.status_code, theirs.text) == (404, missing.text)
    assert asked == []


async def test_without_capacity_the_answer_is_to_try_again(world: JobsWorld, client: Client) -> None:
    job_id = await world.submit(client)
    answer = await client.get(f"/v1/jobs/{job_id}/explain")
    assert answer.status_code == 503
    assert int(answer.headers["Retry-After"]) > 0


async def test_an_operator_moves_anybodys_job_and_capacity_hears_of_it(world: JobsWorld, client: Client) -> None:
    job_id = await world.submit(client)
    async with world.service("olga") as operator:
        key, identity = world.people.keys["olga"]
        world.people.keys["olga"] = (key, msgspec.structs.replace(identity, is_operator=True))
        answer = await operator.post(f"/v1/jobs/{job_id}/priority", json={"priority": 10})
        assert answer.status_code == 200, answer.text
        assert await world.announced(job_id) == ["submitted", "prioritised"]
        event = (await world.events(job_id))[-1]
        assert msgspec.json.decode(event.data, type=JobPrioritised).priority == 10
        assert (await world.row(job_id))["priority"] == 10
        assert event.messageid == int(answer.json()["message"].rpartition(" ")[2].rstrip(")."))
        await client.post(f"/v1/jobs/{job_id}/cancel")
        late = await operator.post(f"/v1/jobs/{job_id}/priority", json={"priority": 10})
        assert late.status_code == 409
        assert "cancelled" in late.json()["detail"]
        unknown = await operator.post(f"/v1/jobs/{uuid4()}/priority", json={"priority": 1})
        assert unknown.status_code == 404


async def test_others_may_not_whether_the_job_is_there_or_not(world: JobsWorld, client: Client) -> None:
    job_id = await world.submit(client)
    answers = [await client.post(f"/v1/jobs/{one}/priority", json={"priority": 1}) for one in (job_id, uuid4())]
    assert [answer.status_code for answer in answers] == [403, 403]
    assert answers[0].text == answers[1].text
    assert await world.announced(job_id) == ["submitted"]


@pytest.mark.parametrize("priority", [1001, -1001, 1.5, True, "1", None])
async def test_a_priority_out_of_bounds_is_refused(client: Client, priority: object) -> None:
    answer = await client.post(f"/v1/jobs/{uuid4()}/priority", json={"priority": priority})
    assert answer.status_code == 400


async def test_no_more_of_a_users_jobs_wait_than_may_however_they_are_submitted(world: JobsWorld) -> None:
    async with world.service(max_waiting_jobs_per_user=3) as client, world.service("bob") as bob:
        tries = [client.post("/v1/jobs/submit", json=body(), headers=_key(number)) for number in range(8)]
        answers = await asyncio.gather(*tries)
        assert sorted(answer.status_code for answer in answers) == [200] * 3 + [409] * 5
        refused = next(answer for answer in answers if answer.status_code == 409)
        assert "3 of your jobs wait already" in refused.json()["detail"]
        assert (await bob.post("/v1/jobs/submit", json=body())).status_code == 200
        taken = next(number for number, answer in enumerate(answers) if answer.status_code == 200 and number % 4)
        again = await client.post("/v1/jobs/submit", json=body(), headers=_key(taken))
        assert (again.status_code, again.headers["Idempotent-Replayed"]) == (200, "true")


def _key(number: int) -> dict[str, str]:
    return {"Idempotency-Key": f"k{number}"} if number % 4 else {}


async def test_a_job_that_alone_wants_more_gpus_than_one_may_hold_is_refused(world: JobsWorld) -> None:
    async with world.service(max_gpus_per_user=4) as client:
        refused = await client.post("/v1/jobs/submit", json=body(gpu_count=8))
        assert refused.status_code == 409
        assert "4 GPUs" in refused.json()["detail"]
        assert (await client.post("/v1/jobs/submit", json=body(gpu_count=4))).status_code == 200


async def test_positions_that_are_told_together_are_noted_and_the_newest_holds(
    world: JobsWorld, client: Client
) -> None:
    jobs = [await world.submit(client) for _ in range(3)]
    waiting = [JobQueued(job_id=job_id, gpu_type="h100", position=1) for job_id in jobs]
    told = [
        (waiting[0], 1),
        (waiting[1], 2),
        (msgspec.structs.replace(waiting[1], position=7, reason="GPUs are in use"), 3),
        (waiting[2], 1),
        (msgspec.structs.replace(waiting[0], job_id=uuid4()), 1),
    ]
    before = [await world.row(job_id) for job_id in jobs]
    async with world.database.transaction() as transaction:
        moves = [
            QueueMove(data.job_id, QueueMoved(data.position, None, data.reason), sequence) for data, sequence in told
        ]
        await apply_queue_moves(transaction=transaction, moves=moves, now=NOW, context=world.context())
    after = [await world.row(job_id) for job_id in jobs]
    assert [row["queue_position"] for row in after] == [1, 7, 1]
    assert [row["capacity_sequence"] for row in after] == [1, 3, 1]
    assert after[1]["status_reason"] == "GPUs are in use"
    assert [row["revision"] for row in after] == [row["revision"] + 1 for row in before]
    assert [await world.announced(job_id) for job_id in jobs] == [["submitted"]] * 3
