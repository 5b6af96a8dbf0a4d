"""The whole capacity service and everybody around it: events in and out over NATS, Kubernetes scripted."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import msgspec
import pytest
from nats.aio.client import Client

from shared.api_key import new_api_key
from shared.contracts.auth import VERIFY_SUBJECT, Identity, VerifyReply
from shared.contracts.capacity import EXPLAIN_SUBJECT, ExplainRequest, Explanation, JobQueued, LeaseGranted
from shared.contracts.events import CloudEvent, EventData, event_subject
from shared.contracts.jobs import JobSubmitted
from tests.support.capacity import Capacity, ScriptedCluster, capacity_settings, cloud_event, scripted_cluster, serving
from tests.support.harness import eventually, flushed, nats_client
from tests.support.servers import NatsServer

L4, T4 = "g6.12xlarge", "g4dn.12xlarge"


@dataclass
class Stage:
    """The running service and everybody around it."""

    client: httpx.AsyncClient
    nats: Client
    cluster: ScriptedCluster
    capacity: Capacity
    headers: dict[str, str]
    granted: dict[UUID, LeaseGranted]
    """The newest of each job."""
    told: dict[UUID, JobQueued]
    """Likewise."""

    async def publish(self, data: EventData, sequence: int, *, copies: int = 1) -> None:
        """An event of the jobs service, each copy with the same id but past the broker's own deduplication."""
        body = msgspec.json.encode(cloud_event(data, sequence))
        for _ in range(copies):
            await self.nats.jetstream().publish(event_subject(data), body)

    async def grant_of(self, job: JobSubmitted) -> LeaseGranted:
        """Wait for the job's GPUs."""
        return await eventually(lambda: self.granted.get(job.job_id), "granted")  # type: ignore[no-any-return]

    async def explain(self, job: JobSubmitted) -> Explanation:
        """What the jobs service is told when it asks about a job."""
        request = msgspec.json.encode(ExplainRequest(job.job_id))
        answer = await self.nats.request(EXPLAIN_SUBJECT, request, timeout=60)
        return msgspec.json.decode(answer.data, type=Explanation)

    async def get(self, path: str) -> httpx.Response:
        """Ask as a user."""
        response: httpx.Response = await self.client.get(path, headers=self.headers)
        return response


@pytest.fixture
async def stage(
    request: pytest.FixtureRequest, capacity: Capacity, nats_server: NatsServer, tmp_path: Path
) -> AsyncIterator[Stage]:
    """One replica beside a node of four L4s; its parameter is how many GPUs a user may hold."""
    key = new_api_key()
    identity = Identity(
        user_id=1, username="alice", key_id=key.key_id, expires_at=datetime.now(UTC) + timedelta(hours=1)
    )

    async def verify(message: Any) -> None:
        known = key.hash.encode() in message.data
        reply = VerifyReply(identity=identity) if known else VerifyReply(refusal="unauthenticated")
        await message.respond(msgspec.json.encode(reply))

    granted: dict[UUID, LeaseGranted] = {}
    told: dict[UUID, JobQueued] = {}

    async def note(message: Any) -> None:
        event = msgspec.json.decode(message.data, type=CloudEvent)
        lease = msgspec.json.decode(event.data, type=LeaseGranted)
        granted[lease.job_id] = lease

    async def note_news(message: Any) -> None:
        event = msgspec.json.decode(message.data, type=CloudEvent)
        news = msgspec.json.decode(event.data, type=JobQueued)
        told[news.job_id] = news

    async with nats_client(nats_server.url) as connection, scripted_cluster(tmp_path) as (cluster, kubeconfig):
        await connection.subscribe(VERIFY_SUBJECT, cb=verify)
        await connection.subscribe(LeaseGranted.subject_filter(), cb=note)
        await connection.subscribe(JobQueued.subject_filter(), cb=note_news)
        await flushed(connection)
        await cluster.put_node("l4-1", L4, 4)
        settings = capacity_settings(
            database_url=capacity.dsn,
            nats_url=nats_server.service_url("capacity"),
            kubeconfig=kubeconfig,
            replica="capacity-test",
            max_gpus_per_user=getattr(request, "param", None),
        )
        async with serving(settings) as client:
            headers = {"Authorization": f"Bearer {key.text}"}
            stage = Stage(client, connection, cluster, capacity, headers, granted, told)

            async def serves() -> bool:
                health = (await client.get("/health/capacity")).json()
                listens = health["unprocessed_messages"] is not None
                return bool(health["status"] == "healthy" and listens and "l4" in await types_of(stage))

            await eventually(serves, "healthy")
            yield stage


async def types_of(stage: Stage) -> dict[str, Any]:
    """What is available, by GPU type."""
    body: dict[str, Any] = (await stage.get("/v1/gpu/availability")).json()
    types: dict[str, Any] = body.get("availability", {})
    return types


async def queued_are(stage: Stage, gpus: int) -> bool:
    """Whether so many L4s are waited for."""
    return bool((await types_of(stage))["l4"]["queued"] == gpus)
