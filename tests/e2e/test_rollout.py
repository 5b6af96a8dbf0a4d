"""Every replica of every service is replaced under load, as by a rolling upgrade, and nobody notices."""

import asyncio
import os
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest

from gpudev import AsyncClient
from tests.support.harness import running
from tests.support.stack import SERVICES, ApiUser, LocalStack, read_events, running_stack, until, users

REPLICAS = [f"{service}-{number}" for service in SERVICES for number in (1, 2)]
REQUESTS_PER_SECOND = 20
STEP_SECONDS = 0.1
"""Between two lines of the followed job."""
NOWHERE = {"image": "debian:12", "instance_type": "p6-b200.48xlarge", "duration_hours": 1, "command": "true"}
"""A job of a type that the fleet has not: it waits for ever."""

pytestmark = [pytest.mark.long, pytest.mark.timeout(600)]


@pytest.fixture
def replicated() -> Iterator[LocalStack]:
    with running_stack(GPUDEV_REPLICAS="2") as stack:
        yield stack


@dataclass
class Load:
    """Requests at a steady pace, whatever becomes of those before."""

    user: ApiUser
    outcomes: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    submitted: list[str] = field(default_factory=list)
    over: asyncio.Event = field(default_factory=asyncio.Event)

    async def run(self) -> None:
        kinds = [self._read_jobs, self._read_gpus, self._read_disks, self._read_keys, self._submit]
        async with asyncio.TaskGroup() as group:
            number = 0
            while not self.over.is_set():
                group.create_task(self._ask(kinds[number % len(kinds)]))
                number += 1
                await asyncio.sleep(1 / REQUESTS_PER_SECOND)

    async def hold(self) -> None:
        """Answers that are held until the job leaves the queue, which it does not."""
        while not self.over.is_set():
            began = time.monotonic()
            await self._ask(self._submit_and_wait)
            await asyncio.sleep(max(0.0, 0.5 - (time.monotonic() - began)))

    async def _ask(self, kind: Callable[[], Coroutine[Any, Any, httpx.Response]]) -> None:
        try:
            answer = await kind()
        except httpx.TransportError as error:
            self.failures.append(f"{kind.__name__}: {error!r}")
            return
        self.outcomes[f"{kind.__name__} {answer.status_code}"] += 1
        if answer.status_code != 200:
            self.failures.append(f"{kind.__name__}: {answer.status_code} {answer.text}")
        elif kind in (self._submit, self._submit_and_wait):
            self.submitted.append(answer.json()["job_id"])

    async def _read_jobs(self) -> httpx.Response:
        return await self.user.client.get("/v1/jobs?limit=5")

    async def _read_gpus(self) -> httpx.Response:
        return await self.user.client.get("/v1/gpu/availability")

    async def _read_disks(self) -> httpx.Response:
        return await self.user.client.get("/v1/disks")

    async def _read_keys(self) -> httpx.Response:
        return await self.user.client.get("/v1/keys")

    async def _submit(self) -> httpx.Response:
        return await self.user.client.post("/v1/jobs/submit", json=NOWHERE)

    async def _submit_and_wait(self) -> httpx.Response:
        answer = await self.user.client.post("/v1/jobs/submit", json=NOWHERE, headers={"Prefer": "wait=5"})
        assert answer.status_code != 200 or answer.json()["status"] in {"pending", "queued"}
        return answer


@asynccontextmanager
async def followed(stack: LocalStack, user: ApiUser) -> AsyncIterator[tuple[str, list[bytes]]]:
    """A job that counts aloud, and what its follower has heard."""
    job_id = await user.submit(command=f"i=0; while :; do i=$((i+1)); echo $i; sleep {STEP_SECONDS}; done", gpu_count=1)
    await user.wait(job_id, "active")
    heard: list[bytes] = []

    async def follow() -> None:
        async with AsyncClient(stack.url, user.key) as client:
            async for piece in client.follow_job_logs(job_id):
                heard.append(piece)  # noqa: PERF401 - it is read meanwhile

    async with running(follow):
        yield job_id, heard


async def replace(stack: LocalStack, name: str) -> None:
    """What a rolling upgrade does to one replica: it is told to stop, and the next is not until another serves."""
    old = stack.parts()[name].pid
    os.kill(old, signal.SIGTERM)

    async def replaced() -> bool:
        part = stack.parts().get(name)
        if part is None or part.pid == old:
            return False
        async with httpx.AsyncClient(trust_env=False) as client:
            metrics = (await client.get(f"http://127.0.0.1:{part.metrics_port}/metrics")).text
        return 'route="/v1/' in metrics  # the ingress sends requests there again

    await until(replaced, f"{name} is replaced", seconds=60)


async def test_nobody_notices_that_every_replica_is_replaced(replicated: LocalStack) -> None:
    stack = replicated
    async with users(stack, "ann", "ben", "cid") as (ann, ben, cid):
        load, held = Load(ann), Load(cid)
        async with followed(stack, ben) as (job_id, heard), asyncio.TaskGroup() as group:
            for task in (load.run, held.hold, held.hold, held.hold):
                group.create_task(task())
            await until(lambda: _count(heard, 10), "the job is heard")
            for name in REPLICAS:
                await replace(stack, name)
            said = b"".join(heard).count(b"\n")
            await until(lambda: _count(heard, said + 20), "the log goes on")
            load.over.set()
            held.over.set()
        lines = b"".join(heard).split(b"\n")[:-1]
        kept = await ben.client.get(f"/v1/jobs/{job_id}/logs")
        events = await read_events(stack)
        listed = [job["job_id"] for user in (ann, cid) for job in await _jobs(user)]
    assert [*load.failures, *held.failures] == []
    assert len(load.submitted) > 4 * REQUESTS_PER_SECOND
    assert lines == [str(number + 1).encode() for number in range(len(lines))]
    assert kept.text.startswith(b"\n".join(lines[:100]).decode())
    assert sorted(listed) == sorted([*load.submitted, *held.submitted])
    assert {events.of(job).count("jobs.submitted") for job in listed} == {1}
    assert max(Counter(event["id"] for event in events.events).values()) == 1
    for name in REPLICAS:
        log = (stack.state.logs / f"{name}.log").read_text()
        assert log.count("service_stopped") == 1, name


async def _count(heard: list[bytes], lines: int) -> bool:
    return b"".join(heard).count(b"\n") >= lines


async def _jobs(user: ApiUser) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    while True:
        page = (await user.client.get(f"/v1/jobs?limit=500&offset={len(found)}")).json()
        found += page["jobs"]
        if len(found) >= page["total"]:
            return found
