"""`gpudev watch` in a process of its own, against a server that tells the events that a test has."""

import asyncio
import json
import os
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from tests.client.scripted import Answerer, says, scripted
from tests.client.test_command import JOB, NAMED, Person, jobs
from tests.client.test_exchange import ENDED
from tests.support.programs import shown_on

STARTED = {"status": "active", "node": "gpu-1", "expires_at": "2026-01-20T19:30:00Z"}
FAILED = {"status": "failed", "exit_code": 3, "failure_reason": "The command ended with exit code 3"}


def event(name: str, number: int, data: dict[str, Any], subject: str = JOB) -> bytes:
    told = {"type": f"dev.gpudev.{name}.v1", "subject": subject, "time": "2026-01-20T18:30:00Z", "data": data}
    return b"id: %d\ndata: %b\n\n" % (number, json.dumps(told).encode())


def tells(*pieces: bytes, job: Any = NAMED) -> Answerer:
    """Answers by path: a stream of events, a list of jobs, or the job."""
    one, every = says(job), jobs(job)

    async def stream(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        await response.write(b"".join(pieces))
        await asyncio.Event().wait()  # what happens next comes later
        return response

    async def answer(request: web.Request) -> web.StreamResponse:
        by_path = {f"/v1/jobs/{JOB}/events": stream, f"/v1/jobs/{JOB}": one, "/v1/jobs": every}
        return await by_path[request.path](request)

    return answer


@pytest.fixture
def person(tmp_path: Path) -> Person:
    return Person(tmp_path)


LIFE = (
    event("jobs.submitted", 1, {"status": "queued"}),
    event("capacity.queued", 2, {"position": 2, "reason": "Waiting for 8 GPUs"}),
    event("capacity.granted", 3, {"node": "gpu-1", "gpu_count": 8}),
    event("jobs.started", 4, STARTED),
    event("jobs.ended", 5, FAILED),
)


async def test_a_job_is_told_line_by_line_until_it_is_over(person: Person) -> None:
    async with scripted(tells(*LIFE)) as server:
        person.hold_key(server.url)
        code, output, told = await person.run("watch", "training")
    assert code == 0, told
    assert output.splitlines() == [
        "18:30:00  training  submitted",
        "18:30:00  training  queued · place 2 · Waiting for 8 GPUs",
        "18:30:00  training  GPUs granted · on gpu-1",
        "18:30:00  training  started · on gpu-1 · until 2026-01-20 19:30:00",
        "18:30:00  training  failed · exit code 3 · The command ended with exit code 3",
    ]


async def test_as_json_events_are_as_they_came(person: Person) -> None:
    async with scripted(tells(*LIFE)) as server:
        person.hold_key(server.url)
        code, output, _ = await person.run("watch", JOB, "--json")
    told = [json.loads(line) for line in output.splitlines()]
    assert code == 0
    assert [one["type"].split(".")[3] for one in told] == ["submitted", "queued", "granted", "started", "ended"]
    assert [one["last_id"] for one in told] == ["1", "2", "3", "4", "5"]
    assert told[4]["data"] == FAILED


async def test_of_a_job_whose_events_are_not_kept_the_end_is_known_all_the_same(person: Person) -> None:
    gone = b'id: 9\nevent: resync\ndata: {"reason": "not kept"}\n\n'
    async with scripted(tells(gone, job=ENDED)) as server:
        person.hold_key(server.url)
        code, output, _ = await person.run("watch", JOB)
    assert (code, output) == (0, "-  earlier events are not kept any more\n")


async def test_on_a_terminal_the_jobs_stand_below_what_happens(person: Person) -> None:
    terminal, end = os.openpty()
    async with scripted(tells(*LIFE)) as server:
        person.hold_key(server.url)
        code, _, told = await person.run("watch", "training", out=end, TERM="xterm", COLUMNS="120")
    os.close(end)
    output = shown_on(terminal)
    assert code == 0, told
    assert output.index("started · on gpu-1") < output.rindex("EXPIRES")
    assert "training" in output.splitlines()[-1] + output.splitlines()[-2]
