"""Pods without the tools: what their command finds there, as far as a shell alone can see to it."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.support.jobs import Client, JobsWorld, until_status

TELL = "echo $$ '$(HOME)' $(SECRET) >&2; echo \"$HOME\"; pwd; echo $PYTHONUNBUFFERED $USER"


@pytest.fixture
async def client(jobs_world: JobsWorld) -> AsyncIterator[Client]:
    assert jobs_world.settings.tools_image is None
    async with jobs_world.service() as client:
        yield client


async def told(world: JobsWorld, client: Client, command: str, **fields: Any) -> list[str]:
    job_id = await world.submit(client, command=command, **fields)
    await world.grant(job_id)
    await until_status(client, job_id, "completed")
    return str((await client.get(f"/v1/jobs/{job_id}/logs")).text).splitlines()


async def test_the_command_is_as_written_and_at_home(jobs_world: JobsWorld, client: Client) -> None:
    env = {"SECRET": "echo pwned"}
    missing, numbers, home, where, rest = await told(jobs_world, client, TELL, env_vars=env)
    assert "SECRET" in missing, "the shell looks for a program of this name"
    number, text = numbers.split()
    assert number.isdigit()
    assert text == "$(HOME)"
    assert home.endswith("/home/dev")
    # the simulator's containers have a root that is not `/`, which is what the shell looks for
    assert where in {"/home/dev", home.removesuffix("/home/dev")}
    assert rest == "1 dev"


async def test_a_home_and_a_directory_may_be_said(jobs_world: JobsWorld, client: Client) -> None:
    *_, home, where, rest = await told(
        jobs_world, client, TELL, working_dir="/home/dev/a $(b)", env_vars={"HOME": "/tmp/x", "USER": "me"}
    )
    assert home == "/tmp/x"
    assert where.endswith("home/a $(b)")  # of the volume, to which the simulator's mounts are links
    assert rest == "1 me"


async def test_the_root_is_a_directory_like_others_when_it_is_asked_for(jobs_world: JobsWorld, client: Client) -> None:
    *_, home, where, _ = await told(jobs_world, client, TELL, working_dir="/")
    assert home == f"{where.rstrip('/')}/home/dev"
