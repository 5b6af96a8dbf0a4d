"""The subscribers of docs/events.md, run as they are written there."""

import asyncio
import os
import re
import shutil
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.support.stack import ROOT, ApiUser, LocalStack, users

PAGE = ROOT / "docs" / "events.md"


def written(name: str) -> str:
    """The block of the page that begins with this comment."""
    block: str = re.findall(rf"```(?:sh|python)\n# {name}\n(.*?)```", PAGE.read_text(), re.DOTALL)[0]
    return block


@asynccontextmanager
async def running(stack: LocalStack, user: ApiUser, *command: str) -> AsyncIterator[asyncio.StreamReader]:
    """What a subscriber prints."""
    environment = {**os.environ, **stack.exports(), "API_URL": stack.url, "API_KEY": user.key}
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, env=environment, start_new_session=True, limit=1 << 20
    )
    assert process.stdout is not None
    try:
        yield process.stdout
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        await process.wait()


async def tells(output: asyncio.StreamReader, *wanted: str) -> None:
    async with asyncio.timeout(60):
        while True:
            line = (await output.readline()).decode()
            assert line, f"it has ended before {wanted}"
            if all(text in line for text in wanted):
                return


async def test_curl(stack: LocalStack) -> None:
    async with users(stack, "curls") as (user,), running(stack, user, "sh", "-c", written("curl")) as output:
        await tells(output, "retry:")
        job_id = await user.submit(command="true", gpu_count=1)
        await tells(output, "data: ", "jobs.submitted", job_id)
        await tells(output, "data: ", "jobs.ended", job_id)


async def test_python(stack: LocalStack, tmp_path: Path) -> None:
    program = tmp_path / "subscriber.py"
    program.write_text(written("python"))
    async with users(stack, "pythonista") as (user,), running(stack, user, sys.executable, str(program)) as output:
        job_id = await user.submit(command="true", gpu_count=1)
        await tells(output, "jobs.submitted", job_id)
        await tells(output, "jobs.ended", job_id)


@pytest.mark.skipif(shutil.which("nats") is None, reason="the nats command is not installed")
async def test_the_nats_command(stack: LocalStack) -> None:
    async with users(stack, "natty") as (user,), running(stack, user, "sh", "-c", written("nats")) as output:
        job_id = await user.submit(command="true", gpu_count=1)
        await tells(output, "jobs.submitted", job_id)
        await tells(output, "jobs.ended", job_id)
