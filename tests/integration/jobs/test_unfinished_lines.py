"""Lines without an end, through the tools' first process: seen while they are printed, told and kept as printed."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path
from uuid import UUID

import pytest

from services.jobs.operations.read import get_job
from services.jobs.operations.stream_log import LogReader, LogRequest
from tests.support.jobs import Client, JobsWorld, until_status
from tests.support.tools_pods import key_pages

MARKS = "\x1f\n\x1e\nend\x1f\n"
"""Lines of the command's own that end with what the tools end records with."""
PRINT_MARKS = r"printf '\037\n\036\nend\037\n'"


@pytest.fixture
async def world(jobs_world: JobsWorld) -> AsyncIterator[JobsWorld]:
    async with key_pages(jobs_world):
        yield jobs_world


@pytest.fixture
async def reader(world: JobsWorld) -> AsyncIterator[LogReader]:
    """Of a replica."""
    context = world.context()
    yield LogReader(context, world.cluster)
    await context.wake_ups.close()


def awaiting(file: Path) -> str:
    return f"while [ ! -e {file} ]; do sleep 0.02; done"


async def run(world: JobsWorld, client: Client, command: str) -> UUID:
    job_id = await world.submit(client, command=command)
    await world.grant(job_id)
    await until_status(client, job_id, "active")
    return job_id


async def follow(reader: LogReader, world: JobsWorld, job_id: UUID, until: str = "", tail: int | None = None) -> str:
    """What is told; up to where it has this text, if one is given."""
    told = ""
    job = await get_job(user_id=1, job_id=str(job_id), context=world.context())
    async with asyncio.timeout(40), aclosing(await reader.open(job, LogRequest(follow=True, tail=tail))) as pieces:
        async for piece in pieces:
            told += piece.decode()
            if until and until in told:
                break
    return told


async def log_of(client: Client, job_id: UUID, **query: int) -> str:
    return str((await client.get(f"/v1/jobs/{job_id}/logs", params=query)).text)


async def test_each_state_of_a_progress_bar_is_seen_before_the_next_one(
    world: JobsWorld, client: Client, reader: LogReader, tmp_path: Path
) -> None:
    seen = [tmp_path / f"seen-{number}" for number in range(3)]
    steps = [rf"printf '\r{number}0%%'; {awaiting(file)}" for number, file in enumerate(seen)]
    job_id = await run(world, client, "; ".join(["echo head", *steps, "echo", PRINT_MARKS]))
    for number, file in enumerate(seen):
        assert (await follow(reader, world, job_id, f"\r{number}0%")).startswith("head\n\r00%")
        file.touch()
    printed = f"head\n\r00%\r10%\r20%\n{MARKS}"
    assert await follow(reader, world, job_id) == printed
    await until_status(client, job_id, "completed")
    assert await log_of(client, job_id) == printed
    assert await log_of(client, job_id, tail=4) == printed.removeprefix("head\n")


@pytest.mark.parametrize("line", ["bar", "long"])
async def test_the_last_lines_are_counted_as_they_were_printed(
    world: JobsWorld, client: Client, reader: LogReader, tmp_path: Path, line: str
) -> None:
    """Kubernetes counts records, of which either line has more than are asked for."""
    states = "".join(rf"printf '\r{number}%%'; sleep 0.35; " for number in range(6))
    print_line = states if line == "bar" else "head -c 100000 /dev/zero | tr '\\0' x; "
    text = "".join(f"\r{number}%" for number in range(6)) if line == "bar" else "x" * 100_000
    gate = awaiting(tmp_path / "go")
    job_id = await run(world, client, f"echo one; echo two; {print_line}echo; {PRINT_MARKS}; {gate}; echo last")
    await follow(reader, world, job_id, "end\x1f\n")
    lines = ["one", "two", text, "\x1f", "\x1e", "end\x1f"]
    following = []
    for tail in range(1, 9):
        wanted = "".join(f"{line}\n" for line in lines[-tail:])
        assert await log_of(client, job_id, tail=tail) == wanted
        assert (await follow(reader, world, job_id, wanted, tail=tail)) == wanted
        following.append((wanted, asyncio.create_task(follow(reader, world, job_id, tail=tail))))
    nothing = asyncio.create_task(follow(reader, world, job_id, "last\n", tail=0))
    await asyncio.wait([nothing, *(task for _, task in following)], timeout=1)
    (tmp_path / "go").touch()
    assert await nothing == "last\n"
    assert [await task for _, task in following] == [f"{wanted}last\n" for wanted, _ in following]
