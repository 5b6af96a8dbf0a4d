"""A job that was submitted with Jupyter is active when that answers; nothing else waits for Jupyter to start."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID

import httpx
import pytest

from services.jobs import storage
from services.jobs.domain.access import NO_ANSWER_YET
from tests.support.harness import eventually
from tests.support.jobs import Client, JobsWorld, job_of, until_status
from tests.support.promises import promised
from tests.support.servers import ClusterSimulator
from tests.support.tools_pods import Tools, key_pages

BOB = f"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAI{'B' * 43}"
HELD = {"Prefer": "wait=20"}


@pytest.fixture
async def world(jobs_world: JobsWorld) -> AsyncIterator[JobsWorld]:
    async with key_pages(jobs_world, bob=BOB):
        yield jobs_world


async def start(
    world: JobsWorld, client: Client, simulator: ClusterSimulator, fault: str, **fields: Any
) -> tuple[UUID, Tools]:
    """A job that is submitted with Jupyter, whose start has this fault."""
    job_id = await world.submit(client, jupyter_enabled=True, **fields)
    await world.grant(job_id)
    return job_id, await Tools.take_over_early(world, simulator, job_id, fault)


async def until_held(client: Client, job_id: UUID, tools: Tools) -> None:
    await eventually(lambda: tools.holds, "Jupyter is asked to start")
    job = await job_of(client, job_id)
    assert (job["status"], job["current_detailed_status"]) == ("preparing", "starting JupyterLab")
    assert (job["expires_at"], job["launched_at"], job["ssh_command"]) == (None, None, None)


async def ask(client: Client, job_id: UUID, action: str, **body: str) -> dict[str, Any]:
    answer: httpx.Response = await client.post(f"/v1/jobs/{job_id}/{action}", json=body or None, headers=HELD)
    assert answer.status_code == 200, answer.text
    told: dict[str, Any] = answer.json()
    return told


async def test_a_job_is_active_when_its_jupyter_answers(
    world: JobsWorld, client: Client, cluster_simulator: ClusterSimulator
) -> None:
    job_id, tools = await start(world, client, cluster_simulator, "hold")
    await until_held(client, job_id, tools)
    refused = await client.post(f"/v1/jobs/{job_id}/jupyter/disable")
    assert (refused.status_code, refused.json()["detail"]) == (409, "The job is not active: it is preparing")
    tools.let("jupyter start", None)
    job = await until_status(client, job_id, "active")
    assert job["jupyter_url"].endswith(f"token={job['jupyter_token']}")
    assert tools.jupyter == f'{{"token":"{job["jupyter_token"]}"}}'
    assert await world.announced(job_id) == ["submitted", "preparing", "started", "jupyter_enabled"]
    assert await world.history(job_id) == ["queued", "preparing", "active"]


async def test_a_job_whose_jupyter_does_not_start_is_active_with_the_reason(
    world: JobsWorld, client: Client, cluster_simulator: ClusterSimulator
) -> None:
    job_id, _ = await start(world, client, cluster_simulator, "fail")
    job = await until_status(client, job_id, "active")
    assert (job["jupyter_enabled"], job["jupyter_url"], job["jupyter_error"]) == (False, None, "the disk is full")
    assert await world.announced(job_id) == ["submitted", "preparing", "started", "jupyter_failed"]


async def test_jupyter_is_not_waited_for_for_ever_and_comes_all_the_same(
    world: JobsWorld, cluster_simulator: ClusterSimulator
) -> None:
    async with world.service(access_seconds=2.0) as client:
        job_id, tools = await start(world, client, cluster_simulator, "hold")
        job = await until_status(client, job_id, "active")
        assert (job["jupyter_url"], job["jupyter_error"]) == (None, NO_ANSWER_YET)
        tools.let("jupyter start", None)

        async def answers() -> bool:
            job = await job_of(client, job_id)
            return job["jupyter_url"] is not None and job["jupyter_error"] is None

        await eventually(answers, "it answers")


async def test_a_command_that_ends_before_jupyter_answers_ends_its_job(
    world: JobsWorld, client: Client, cluster_simulator: ClusterSimulator
) -> None:
    job_id, tools = await start(world, client, cluster_simulator, "hold", command="sleep 2; exit 3")
    job = await until_status(client, job_id, "failed")
    assert (job["exit_code"], tools.jupyter) == (3, None)
    assert await world.history(job_id) == ["queued", "preparing", "active", "failed"]


async def test_a_cancel_does_not_wait_for_jupyter(
    world: JobsWorld, client: Client, cluster_simulator: ClusterSimulator
) -> None:
    job_id, tools = await start(world, client, cluster_simulator, "hold")
    await until_held(client, job_id, tools)
    assert (await ask(client, job_id, "cancel"))["status"] == "succeeded"
    assert await world.history(job_id) == ["queued", "preparing", "cancelled"]


async def test_a_service_that_dies_while_jupyter_starts_is_followed_by_another(
    world: JobsWorld, cluster_simulator: ClusterSimulator
) -> None:
    async with world.service() as client:
        job_id, tools = await start(world, client, cluster_simulator, "hold")
        await until_held(client, job_id, tools)
    async with world.service() as other:
        tools.let("jupyter start", None)
        job = await until_status(other, job_id, "active")
        assert job["jupyter_url"] is not None


@asynccontextmanager
async def starting_jupyter(
    world: JobsWorld, client: Client, simulator: ClusterSimulator
) -> AsyncIterator[tuple[UUID, Tools]]:
    """An active job in which Jupyter is just being started, for the length of the block."""
    job_id, tools = await start(world, client, simulator, "")
    await until_status(client, job_id, "active")
    assert (await ask(client, job_id, "jupyter/disable"))["status"] == "succeeded"
    tools.let("jupyter start", "hold")
    await client.post(f"/v1/jobs/{job_id}/jupyter/enable")
    await eventually(lambda: tools.holds, "Jupyter is asked to start")
    yield job_id, tools
    tools.let("jupyter start", None)


@pytest.mark.parametrize("elsewhere", [False, True], ids=["here", "at another replica"])
async def test_a_user_and_a_disable_do_not_wait_for_jupyter_to_start(
    world: JobsWorld, client: Client, cluster_simulator: ClusterSimulator, elsewhere: bool
) -> None:
    async with world.service() as other, starting_jupyter(world, client, cluster_simulator) as (job_id, tools):
        asked = other if elsewhere else client
        assert (await ask(asked, job_id, "users", github_username="bob"))["status"] == "succeeded"
        assert BOB in tools.authorized_keys
        assert (await ask(asked, job_id, "jupyter/disable"))["status"] == "succeeded"
        assert tools.jupyter is None
        job = await job_of(asked, job_id)
        assert (job["jupyter_enabled"], job["jupyter_url"], job["jupyter_error"]) == (False, None, None)
        assert job["secondary_users"] == ["bob"]


@pytest.mark.parametrize("last", ["enable", "disable"])
async def test_the_last_wish_wins_also_at_the_moment_of_the_start(
    world: JobsWorld, client: Client, cluster_simulator: ClusterSimulator, last: str
) -> None:
    first = "disable" if last == "enable" else "enable"
    async with world.service() as other:
        job_id, tools = await start(world, client, cluster_simulator, "")
        await until_status(client, job_id, "active")

        async def settled() -> bool:
            return not storage.jobs.to_job(await world.row(job_id)).awaits_jupyter

        for turn in range(6):
            one, two = (client, other) if turn % 2 else (other, client)
            await one.post(f"/v1/jobs/{job_id}/jupyter/{first}")
            await asyncio.sleep(0.05 * turn)  # at another moment of the start each time
            await two.post(f"/v1/jobs/{job_id}/jupyter/{last}")
            with promised(5):
                await eventually(settled, "the last wish is in effect")
            job = await job_of(client, job_id)
            assert job["jupyter_enabled"] is (last == "enable")
            assert tools.jupyter == (f'{{"token":"{job["jupyter_token"]}"}}' if last == "enable" else None)
