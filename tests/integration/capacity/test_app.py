"""The whole service: events in over NATS, leases and news out, answers over HTTP."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import msgspec
import nats
import pytest
from nats.aio.client import Client

from shared.api_key import new_api_key
from shared.contracts.auth import VERIFY_SUBJECT, Identity, VerifyReply
from shared.contracts.capacity import LeaseGranted
from shared.contracts.events import CloudEvent, EventData, event_subject
from shared.contracts.jobs import JobSubmitted
from shared.database import migrate
from tests.support.capacity import (
    Capacity,
    ScriptedCluster,
    capacity_settings,
    cloud_event,
    ended,
    scripted_cluster,
    serving,
    submitted,
)
from tests.support.ground import eventually
from tests.support.servers import NatsServer, PostgresServer

# other services' tests put jobs of their own on the one stream: these types are only used here
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

    async def publish(self, data: EventData, sequence: int, *, copies: int = 1) -> None:
        """An event of the jobs service, each copy with the same id but past the broker's own deduplication."""
        body = msgspec.json.encode(cloud_event(data, sequence))
        for _ in range(copies):
            await self.nats.jetstream().publish(event_subject(data), body)

    async def grant_of(self, job: JobSubmitted) -> LeaseGranted:
        """Wait for the job's GPUs."""
        return await eventually(lambda: self.granted.get(job.job_id), "granted")  # type: ignore[no-any-return]

    async def get(self, path: str) -> httpx.Response:
        """Ask as a user."""
        response: httpx.Response = await self.client.get(path, headers=self.headers)
        return response


@pytest.fixture
async def stage(capacity: Capacity, nats_server: NatsServer, tmp_path: Path) -> AsyncIterator[Stage]:
    connection = await nats.connect(nats_server.url)
    key = new_api_key()
    identity = Identity(
        user_id=1, username="alice", key_id=key.key_id, expires_at=datetime.now(UTC) + timedelta(hours=1)
    )

    async def verify(message: Any) -> None:
        known = key.hash.encode() in message.data
        reply = VerifyReply(identity=identity) if known else VerifyReply(refusal="unauthenticated")
        await message.respond(msgspec.json.encode(reply))

    granted: dict[UUID, LeaseGranted] = {}

    async def note(message: Any) -> None:
        event = msgspec.json.decode(message.data, type=CloudEvent)
        lease = msgspec.json.decode(event.data, type=LeaseGranted)
        granted[lease.job_id] = lease

    await connection.subscribe(VERIFY_SUBJECT, cb=verify)
    await connection.subscribe(LeaseGranted.subject_filter(), cb=note)
    async with scripted_cluster(tmp_path) as (cluster, kubeconfig):
        await cluster.put_node("l4-1", L4, 4)
        settings = capacity_settings(
            database_url=capacity.dsn, nats_url=nats_server.url, kubeconfig=kubeconfig, replica="capacity-test"
        )
        async with serving(settings) as client:
            headers = {"Authorization": f"Bearer {key.text}"}
            stage = Stage(client, connection, cluster, capacity, headers, granted)

            async def serves() -> bool:
                health = (await client.get("/health/capacity")).json()
                listens = health["unprocessed_messages"] is not None
                return bool(health["status"] == "healthy" and listens and "l4" in await _types(stage))

            await eventually(serves, "healthy", seconds=15)
            yield stage
    await connection.close()


async def test_a_job_is_granted_ends_and_the_next_starts_with_nobody_calling(stage: Stage) -> None:
    """Incident 26."""
    first, second = submitted(4, "l4"), submitted(4, "l4", at=datetime.now(UTC))
    await stage.publish(first, 1, copies=2)
    lease = await stage.grant_of(first)
    assert (lease.node, lease.gpu_count, lease.epoch) == ("l4-1", 4, 1)
    await stage.publish(second, 1)
    await eventually(lambda: _queued(stage, 4), "second waits")
    await stage.publish(ended(first), 4)
    await stage.grant_of(second)
    await eventually(lambda: _queued(stage, 0), "nobody waits")
    await stage.publish(ended(second), 4)


async def test_availability_has_the_contracts_shape(stage: Stage) -> None:
    body = (await stage.get("/v1/gpu/availability")).json()
    entry = body["availability"]["l4"]
    assert list(entry)[:6] == ["gpu_type", "total", "available", "in_use", "queued", "max_per_node"]
    assert entry["max_placeable"] == 4
    assert entry["nodes"] == [{"name": "l4-1", "total": 4, "in_use": 0, "ready": True, "schedulable": True}]
    assert body["timestamp"].endswith("Z")


async def test_cluster_status_has_the_contracts_shape_and_agrees(stage: Stage) -> None:
    body = (await stage.get("/v1/cluster/status")).json()
    assert list(body)[:10] == [
        "total_gpus",
        "available_gpus",
        "in_use_gpus",
        "queued_gpus",
        "active_reservations",
        "preparing_reservations",
        "queued_reservations",
        "pending_reservations",
        "by_gpu_type",
        "timestamp",
    ]
    assert body["total_gpus"] == body["available_gpus"] + body["in_use_gpus"]
    assert body["total_gpus"] == sum(entry["total"] for entry in body["by_gpu_type"].values())


@pytest.mark.parametrize("path", ["/v1/gpu/availability", "/v1/cluster/status"])
async def test_both_ask_for_a_key(stage: Stage, path: str) -> None:
    assert (await stage.client.get(path)).status_code == 401
    assert (await stage.get(path)).status_code == 200


async def test_both_answer_while_the_cluster_is_away(stage: Stage) -> None:
    stage.cluster.failing = 500
    assert (await stage.get("/v1/gpu/availability")).json()["availability"]["l4"]["total"] == 4


async def test_the_service_starts_while_the_cluster_is_away(
    capacity: Capacity, nats_server: NatsServer, tmp_path: Path
) -> None:
    settings = capacity_settings(
        database_url=capacity.dsn, nats_url=nats_server.url, kubeconfig=str(tmp_path / "none"), replica="capacity-test"
    )
    async with serving(settings) as client:
        assert (await client.get("/livez")).status_code == 200
        await asyncio.sleep(0)
        assert (await client.get("/readyz")).status_code == 200


def test_the_migrations_make_the_tables_of_the_code(postgres_server: PostgresServer) -> None:
    dsn = postgres_server.make_service_database("capacity")
    migrate.upgrade("capacity", dsn)
    migrate.check("capacity", dsn)
    migrate.downgrade("capacity", dsn)
    migrate.upgrade("capacity", dsn)
    postgres_server.drop_database(dsn)


async def _types(stage: Stage) -> dict[str, Any]:
    body: dict[str, Any] = (await stage.get("/v1/gpu/availability")).json()
    types: dict[str, Any] = body.get("availability", {})
    return types


async def _queued(stage: Stage, gpus: int) -> bool:
    return bool((await _types(stage))["l4"]["queued"] == gpus)
