"""A user's events while each process is killed in turn: what they are sent is what the outboxes have."""

import asyncio
import itertools
import os
import random
import time
from collections.abc import AsyncIterator, Container
from dataclasses import dataclass, field
from typing import Any

import pytest
from aiohttp import web

from gpudev.client import AsyncClient
from gpudev.models import Event
from tests.support.harness import connected, running
from tests.support.http_server import serving
from tests.support.load import VICTIMS
from tests.support.stack import ApiUser, LocalStack, running_stack, until, users

SETTINGS = {"GPUDEV_REPLICAS": "2", "GPUDEV_TOOLS_IMAGE": "", "GPUDEV_WEBHOOK_NETWORKS": "127.0.0.0/8"}
TOLD = ["jobs.submitted", "jobs.preparing", "jobs.started", "jobs.ended"]
PAUSE_SECONDS = 5.0
_OF_JOBS = "SELECT event_id, type, entity_id, entity_version FROM outbox WHERE entity_id = ANY($1)"


@dataclass
class Record:
    """What one way has brought, in the order of its coming."""

    events: list[tuple[str, str, str, int]] = field(default_factory=list)
    """Id, source, subject and sequence of each, repeated ones too."""

    def add(self, event_id: str, source: str, subject: str, sequence: int) -> None:
        """One has come."""
        self.events.append((event_id, source, subject, sequence))

    def about(self, subjects: Container[str]) -> set[str]:
        """Ids of the events about these."""
        return {event_id for event_id, _, subject, _ in self.events if subject in subjects}

    def check_order(self) -> None:
        """Of one service's events about one subject none comes before an earlier one, but again under the same id."""
        last: dict[tuple[str, str], int] = {}
        for _, source, subject, sequence in dict.fromkeys(self.events):
            assert sequence > last.get((source, subject), 0), (source, subject, sequence)
            last[source, subject] = sequence


@dataclass
class Chaos:
    """Kills one process after the other, in an order that the seed says."""

    stack: LocalStack
    chance: random.Random
    killed: list[str] = field(default_factory=list)

    async def go_on(self, until_time: float) -> None:
        """Until then, each process once before any comes again."""
        order = itertools.chain.from_iterable(self.chance.sample(VICTIMS, len(VICTIMS)) for _ in itertools.count())
        while time.monotonic() < until_time:
            victim = next(order)
            if victim in self.stack.parts():
                self.stack.kill(victim)
                self.killed.append(victim)
            await asyncio.sleep(PAUSE_SECONDS)


async def follow(user: ApiUser, record: Record) -> None:
    """Keep what the stream brings, over all its ends; an outage of any length is sat out."""
    async with AsyncClient(str(user.client.base_url), user.key, retry_seconds=120) as client:
        async for event in client.follow_events(topics="jobs"):
            assert isinstance(event, Event)
            record.add(event.id, event.source, event.subject, event.sequence)


def half_deaf(record: Record, chance: random.Random) -> Any:
    """A receiver that says of every second message that it has failed, after having taken it or not."""

    async def answer(request: web.Request) -> web.Response:
        event = await request.json()
        fails, takes = chance.random() < 0.5, chance.random() < 0.5
        if takes or not fails:
            record.add(request.headers["webhook-id"], event["source"], event["subject"], event["sequence"])
        return web.Response(status=500 if fails else 200)

    return answer


async def submitted(user: ApiUser, until_time: float) -> AsyncIterator[str]:
    """Jobs, one after the other, some of which are cancelled at once."""
    number = 0
    while time.monotonic() < until_time:
        number += 1
        job_id = await user.submit(attempts=300, gpu_count=1, command="exit 0" if number % 3 else "exit 3")
        if number % 4 == 0:
            await until(lambda job_id=job_id: cancelled(user, job_id), "it is cancelled", seconds=60)  # type: ignore[misc]
        yield job_id
        await asyncio.sleep(0.5)


async def cancelled(user: ApiUser, job_id: str) -> bool:
    answer = await user.client.post(f"/v1/jobs/{job_id}/cancel")
    return answer.status_code in {200, 409}


async def outboxes(stack: LocalStack, job_ids: list[str]) -> dict[str, str]:
    """Types of the events about these jobs, by their ids."""
    found = {}
    for service in ("jobs", "capacity"):
        async with connected(stack.dsn(service)) as connection:
            found |= {str(row["event_id"]): row["type"] for row in await connection.fetch(_OF_JOBS, job_ids)}
    return found


async def record_chaos(seconds: float, seed: int) -> None:
    chance = random.Random(seed)
    stream, told = Record(), Record()
    with running_stack(**SETTINGS) as stack:
        async with users(stack, "watcher") as (user,), serving(half_deaf(told, chance)) as url:
            made = await user.client.post("/v1/webhooks", json={"url": url, "types": TOLD})
            assert made.status_code == 200, made.text
            job_ids: list[str] = []
            async with running(lambda: follow(user, stream)):
                first = await user.submit(gpu_count=1, command="exit 0")
                await until(lambda: has(stream, first), "the stream has begun")
                ends = time.monotonic() + seconds
                chaos = Chaos(stack, chance)
                async with running(lambda: chaos.go_on(ends)):
                    async for job_id in submitted(user, ends):
                        job_ids.append(job_id)  # noqa: PERF401 - it takes its time
                await until(lambda: all_over(user, job_ids), "every job is over", seconds=180)
                wanted = await outboxes(stack, job_ids)
                await until(lambda: has_all(stream, set(wanted)), "every event came", seconds=180)
                of_types = {one for one, name in wanted.items() if name[11:-3] in TOLD}
                await every_message(stack, told, of_types)
            # a lease may end after its job: what came is compared with what there is by now
            recorded = await outboxes(stack, job_ids)
            assert stream.about(job_ids) <= set(recorded)
            assert told.about(job_ids) == of_types
            stream.check_order()
            told.check_order()
    assert len(chaos.killed) >= seconds / PAUSE_SECONDS / 2
    assert len(job_ids) > seconds / 10


async def has(record: Record, job_id: str) -> bool:
    return any(subject == job_id for _, _, subject, _ in record.events)


async def has_all(record: Record, ids: set[str]) -> bool:
    return ids <= {event_id for event_id, _, _, _ in record.events}


async def all_over(user: ApiUser, job_ids: list[str]) -> bool:
    return all([(await user.job(job_id))["status"] in {"completed", "failed", "cancelled"} for job_id in job_ids])


async def every_message(stack: LocalStack, record: Record, ids: set[str]) -> None:
    """Wait until all have come, however many there are to be sent again: as long as there is progress."""
    missing, since = ids, time.monotonic()
    while missing:
        # lets time pass for what waits to be sent again; what is due already is left alone, for its worker
        await stack.execute(
            "jobs", "UPDATE webhook_deliveries SET due_at = now() WHERE status = 'pending' AND due_at > now()"
        )
        await asyncio.sleep(1)
        left = ids - {event_id for event_id, _, _, _ in record.events}
        if left != missing:
            missing, since = left, time.monotonic()
        assert time.monotonic() - since < 60, await states_of(stack, missing)


async def states_of(stack: LocalStack, ids: set[str]) -> str:
    """What became of messages, for who reads the failure."""
    async with connected(stack.dsn("jobs")) as connection:
        rows = await connection.fetch(
            "SELECT type, status, attempts, last_error, count(*) FROM webhook_deliveries "
            "WHERE message_id = ANY($1) GROUP BY 1, 2, 3, 4",
            list(ids),
        )
    return f"{len(ids)} messages did not come, of which there are {[tuple(row) for row in rows]}"


@pytest.mark.long
@pytest.mark.timeout(800)
async def test_two_minutes_of_deaths_take_no_event_away() -> None:
    await record_chaos(120, seed=20260120)


@pytest.mark.slow
@pytest.mark.timeout(1800)
async def test_twenty_minutes_of_deaths_take_no_event_away() -> None:
    await record_chaos(1200, seed=int(os.environ.get("CHAOS_SEED", "1")))
