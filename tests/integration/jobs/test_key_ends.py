"""Answers that last end with the key that asked for them, begin at once, and are only so many."""

import asyncio
import time
from datetime import timedelta

import msgspec
import pytest
import sqlalchemy as sa

from services.jobs import storage
from shared.database import Statement
from tests.support.harness import eventually
from tests.support.jobs import Client, JobsWorld, body, later
from tests.support.promises import promised

ENDS_WITHIN = 5.0
WAIT = {"Prefer": "wait=30"}
_JOBS = Statement(sa.select(storage.tables.jobs.c.id))


def end_key(world: JobsWorld, how: str) -> str:
    """The key of alice is good no longer; what is said of it."""
    key, identity = world.people.keys["alice"]
    if how == "expired":
        world.people.keys["alice"] = key, msgspec.structs.replace(identity, expires_at=later() + timedelta(seconds=1))
        return "it has expired"
    del world.people.keys["alice"]
    if how == "disabled":
        world.people.disabled.add(key.hash)
        return "its user is disabled"
    return "it was revoked"


@pytest.mark.parametrize("how", ["revoked", "disabled", "expired"])
async def test_a_followed_log_ends_with_its_key_and_says_why(world: JobsWorld, client: Client, how: str) -> None:
    job_id = await world.submit(client)
    following = asyncio.create_task(client.get(f"/v1/jobs/{job_id}/logs", params={"follow": "true"}, timeout=30))
    await asyncio.sleep(0)
    await client.get(f"/v1/jobs/{job_id}")
    assert not following.done()
    why = end_key(world, how)
    with promised(ENDS_WITHIN):
        answer = await following
    assert answer.status_code == 200
    last = answer.text.strip().split("\n")[-1]
    assert last.startswith(f"[gpudev: this answer ends here: {why}")


@pytest.mark.parametrize("how", ["revoked", "disabled", "expired"])
async def test_a_held_answer_ends_with_its_key_and_says_why(world: JobsWorld, client: Client, how: str) -> None:
    waiting = asyncio.create_task(client.post("/v1/jobs/submit", json=body(), headers=WAIT, timeout=40))
    await eventually(lambda: _count(world), "the job is there")
    why = end_key(world, how)
    with promised(ENDS_WITHIN):
        answer = await waiting
    assert answer.status_code == 401
    assert why in answer.json()["detail"]


async def test_an_answer_lasts_while_auth_cannot_be_asked_for_a_moment(world: JobsWorld, client: Client) -> None:
    job_id = await world.submit(client)
    following = asyncio.create_task(client.get(f"/v1/jobs/{job_id}/logs", params={"follow": "true"}, timeout=30))
    world.people.away = True
    started = time.monotonic()
    while time.monotonic() - started < 2 * ENDS_WITHIN and not following.done():
        await asyncio.wait([following], timeout=1)
    assert not following.done()
    world.people.away = False
    end_key(world, "revoked")
    assert "it was revoked" in (await following).text


async def test_more_answers_than_so_many_are_not_held(world: JobsWorld) -> None:
    async with world.service(max_held_answers=2) as client:
        held = [
            asyncio.create_task(client.post("/v1/jobs/submit", json=body(), headers=WAIT, timeout=40)) for _ in range(2)
        ]
        await eventually(lambda: _count(world, 2), "both jobs are there")
        answer = await client.post("/v1/jobs/submit", json=body(), headers=WAIT)
        assert answer.status_code == 200
        assert "Preference-Applied" not in answer.headers
        assert not any(task.done() for task in held)
        end_key(world, "revoked")
        assert [(await task).status_code for task in held] == [401, 401]


async def _count(world: JobsWorld, at_least: int = 1) -> bool:
    return len(await world.database.fetch_all(_JOBS)) >= at_least
