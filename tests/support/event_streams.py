"""Followers of events, and replicas of jobs in processes of their own that they follow."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import httpx
import msgspec

from shared.background import cancel_all
from shared.contracts.auth import VERIFY_SUBJECT, VerifyReply, VerifyRequest
from shared.contracts.jobs import JobExpiring, JobStatus
from shared.errors import Forbidden, Unauthenticated
from tests.support.harness import eventually, flushed
from tests.support.jobs import JobsWorld, later
from tests.support.replica import Replica


@dataclass
class Follower:
    """What one client has been sent."""

    events: list[dict[str, Any]] = field(default_factory=list)
    """CloudEvents, repeated ones too."""
    controls: list[tuple[str, Any]] = field(default_factory=list)
    """Kind and data of the answer's own events."""
    last_id: str | None = None
    ended: bool = False
    """The answer has come to its end."""
    head: httpx.Headers = field(default_factory=httpx.Headers)
    lines: list[str] = field(default_factory=list)
    """Everything."""

    def numbers(self) -> list[int]:
        """Versions of the events."""
        return [event["sequence"] for event in self.events]

    async def read(self, answer: httpx.Response, taken: Callable[[], None] = lambda: None) -> None:
        """Take an answer to its end."""
        self.head = answer.headers
        event: dict[str, str] = {}
        async for line in answer.aiter_lines():
            self.lines.append(line)
            name, _, value = line.partition(": ")
            if line:
                event[name] = value
                continue
            self.last_id = event.get("id", self.last_id)
            if "event" in event:
                self.controls.append((event["event"], json.loads(event["data"])))
            elif "data" in event:
                self.events.append(json.loads(event["data"]))
            event = {}
            taken()
        self.ended = True


@asynccontextmanager
async def following(
    url: str, headers: dict[str, str], path: str = "/v1/events", last_id: str | None = None
) -> AsyncIterator[Follower]:
    """A client that follows for the length of the block, once its answer has begun."""
    follower = Follower()
    more = {} if last_id is None else {"Last-Event-ID": last_id}
    async with httpx.AsyncClient(base_url=url, trust_env=False, timeout=40) as client:
        begun = asyncio.Event()

        async def follow() -> None:
            async with client.stream("GET", path, headers={**headers, **more}) as answer:
                if answer.status_code != httpx.codes.OK:
                    await answer.aread()
                    raise AssertionError(f"{answer.status_code}: {answer.text}")
                await follower.read(answer, begun.set)

        task = asyncio.create_task(follow())
        begins = asyncio.create_task(begun.wait())
        await asyncio.wait([task, begins], return_when=asyncio.FIRST_COMPLETED, timeout=30)
        begins.cancel()
        if task.done():
            task.result()
        try:
            yield follower
        finally:
            await cancel_all([task])


async def sent(follower: Follower, number: int, *, seconds: float = 60.0) -> list[dict[str, Any]]:
    """Wait until a client has so many events; they."""
    await eventually(lambda: len(follower.events) >= number, f"{number} events", seconds=seconds)
    return follower.events


def expiring(job_id: UUID, user_id: int, *, minutes: int = 5, username: str = "alice") -> JobExpiring:
    """An event of a job."""
    return JobExpiring(
        job_id=job_id,
        user_id=user_id,
        username=username,
        status=JobStatus.ACTIVE,
        expires_at=later(minutes=minutes),
        minutes_left=minutes,
    )


async def tell(world: JobsWorld, user_id: int, count: int, *, first: int = 1, job_id: UUID | None = None) -> UUID:
    """Publish events of a job of a user, versions from `first` on; the job."""
    job_id = job_id or uuid4()
    for number in range(first, first + count):
        await world.publish(expiring(job_id, user_id), sequence=number)
    return job_id


@asynccontextmanager
async def keys_checked(world: JobsWorld) -> AsyncIterator[None]:
    """Auth answers replicas as the world's people say."""

    async def answer(message: Any) -> None:
        asked = msgspec.json.decode(message.data, type=VerifyRequest)
        try:
            reply = VerifyReply(identity=await world.people.verify(asked.key_hash))
        except (Unauthenticated, Forbidden) as error:
            reply = VerifyReply(refusal="forbidden" if isinstance(error, Forbidden) else "unauthenticated")
        await message.respond(msgspec.json.encode(reply))

    subscription = await world.broker.client.subscribe(VERIFY_SUBJECT, cb=answer)
    await flushed(world.broker.client)
    yield
    if world.broker.connected:
        await subscription.unsubscribe()


def jobs_replica(world: JobsWorld, log: Path, **settings: str) -> Replica:
    """A replica of jobs, not started."""
    of_world = {
        f"GPUDEV_{name.upper()}": str(getattr(world.settings, name))
        for name in ("database_url", "nats_url", "secret_keys", "kubeconfig", "namespace", "log_level")
    }
    return Replica("jobs", log, {**of_world, **settings})
