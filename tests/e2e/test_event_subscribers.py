"""The subscribers of docs/events.md, run as they are written there."""

import argparse
import asyncio
import json
import os
import re
import shlex
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import nats
import pytest
from nats.aio.msg import Msg

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


def words_of_the_nats_command() -> dict[str, str]:
    """What the page's command says, by its options; the subject under no name."""
    words = argparse.ArgumentParser()
    words.add_argument("program", choices=["nats"])
    words.add_argument("--server", choices=["$NATS_URL"], required=True)
    words.add_argument("command", choices=["subscribe"])
    words.add_argument("--stream", required=True)
    words.add_argument("--all", action="store_const", const="all", required=True)
    words.add_argument("subject")
    return dict(vars(words.parse_args(shlex.split(written("nats")))))


@asynccontextmanager
async def pushed(url: str, way: str) -> AsyncIterator[asyncio.Queue[Msg]]:
    """What the nats command is sent after it has made its consumer, which lives as long as the block."""
    said = words_of_the_nats_command()
    refusals: list[Exception] = []

    async def note(error: Exception) -> None:
        refusals.append(error)

    client = await nats.connect(url, error_cb=note)
    inbox, told = client.new_inbox(), asyncio.Queue[Msg]()

    async def take(message: Msg) -> None:
        if (message.headers or {}).get("Status") != "100":
            told.put_nowait(message)
        elif message.reply:  # flow control; without a reply it is a heartbeat
            await message.respond(b"")

    await client.subscribe(inbox, cb=take)
    config = {
        "deliver_policy": said["all"],
        "deliver_subject": inbox,
        "ack_policy": "none",
        "flow_control": True,
        "idle_heartbeat": 5_000_000_000,
        "replay_policy": "instant",
        **({"filter_subject": said["subject"]} if "{subject}" in way else {}),
    }
    name = way.format(name="wJ3kQ9xT", **said)
    place = ".".join(filter(None, ("$JS.API.CONSUMER.CREATE", said["stream"], name)))
    asked = {"stream_name": said["stream"], "config": {**config, **({"name": "wJ3kQ9xT"} if name else {})}}
    made = json.loads((await client.request(place, json.dumps(asked).encode(), timeout=60)).data)
    assert "error" not in made, made
    assert {key: made["config"][key] for key in config} == config
    try:
        yield told
        info = json.loads((await client.request(f"$JS.API.CONSUMER.INFO.{said['stream']}.{made['name']}", b"")).data)
        assert info["num_ack_pending"] == 0, "it acknowledges nothing, and nothing waits for it"
        gone = json.loads((await client.request(f"$JS.API.CONSUMER.DELETE.{said['stream']}.{made['name']}", b"")).data)
        assert gone["success"]
        assert refusals == []
    finally:
        await client.close()


@pytest.mark.parametrize("way", ["{name}.{subject}", "{name}", ""])
async def test_what_the_nats_command_asks_for(stack: LocalStack, way: str) -> None:
    """PyPI, Debian and npm do not have the command, so its words are said to the broker as it says them.

    By releases: with name and subject; before, a subject beside a stream was passed over; the first knew no names.
    """
    async with users(stack, "natty") as (user,), pushed(stack.exports()["NATS_URL"], way) as told:
        job_id = await user.submit(command="true", gpu_count=1)
        seen: list[str] = []
        async with asyncio.timeout(60):
            while "ended" not in seen:
                message = await told.get()
                _, _, domain, event, subject = message.subject.split(".")
                assert domain == "jobs" or "{subject}" not in way
                if (domain, subject) == ("jobs", job_id):
                    assert json.loads(message.data)["subject"] == job_id
                    seen.append(event)
        assert seen[0] == "submitted"
