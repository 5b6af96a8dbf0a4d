"""The whole service: events in over NATS, leases and news out, answers over HTTP."""

import asyncio
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID, uuid4

import httpx
import msgspec
import pytest

from services.capacity.domain.availability import count_availability
from services.capacity.operations.read import read_snapshot
from services.capacity.operations.record_cluster import PodListing, record_pod_listing
from shared.contracts.capacity import UNPLACED_SUBJECT, UnplacedReply, UnplacedRequest
from shared.contracts.events import STREAM
from shared.database import migrate
from shared.database.locks import lock_key
from tests.support.capacity import NOW, Capacity, capacity_settings, ended, facts, later, serving, submitted
from tests.support.capacity_stage import Stage, queued_are
from tests.support.harness import connected, eventually
from tests.support.servers import NatsServer, PostgresServer


async def test_a_job_is_granted_ends_and_the_next_starts_with_nobody_calling(stage: Stage) -> None:
    """Incident 26."""
    first, second = submitted(4, "l4"), submitted(4, "l4", at=datetime.now(UTC))
    await stage.publish(first, 1, copies=2)
    lease = await stage.grant_of(first)
    assert (lease.node, lease.gpu_count, lease.epoch) == ("l4-1", 4, 1)
    await stage.publish(second, 1)
    await eventually(lambda: queued_are(stage, 4), "second waits")
    await stage.publish(ended(first), 4)
    await stage.grant_of(second)
    await eventually(lambda: queued_are(stage, 0), "nobody waits")


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


async def test_an_answer_is_as_of_no_earlier_than_what_it_holds(capacity: Capacity) -> None:
    await capacity.nodes(facts("h100-1"))
    await record_pod_listing(capacity.context, PodListing(pods=(), resource_version=1), now=NOW)
    await capacity.submit(4)
    await capacity.schedule(later(minutes=1))

    snapshot = await read_snapshot(capacity.database)

    assert [entry.in_use for entry in count_availability(snapshot)] == [4]
    assert snapshot.as_of is not None
    assert snapshot.as_of >= later(minutes=1)


@pytest.mark.parametrize("path", ["/v1/gpu/availability", "/v1/cluster/status"])
@pytest.mark.parametrize("way", [{}, {"Prefer": "respond-async"}], ids=["before the framework", "by its route"])
async def test_who_has_an_answer_is_told_that_it_holds_until_it_does_not(
    stage: Stage, path: str, way: dict[str, str]
) -> None:
    async def ask(known: str) -> httpx.Response:
        return await stage.client.get(path, headers={**stage.headers, **way, "If-None-Match": known})

    tag = (await ask("")).headers["etag"]
    for known in (tag, f"W/{tag}", f'"other", {tag}', "*"):
        same = await ask(known)
        assert (same.status_code, same.headers["etag"], same.content) == (304, tag, b"")
    job = submitted(8, "l4")  # more than there are: it waits
    await stage.publish(job, 1)
    await eventually(lambda: queued_are(stage, 8), "it waits")
    changed = await ask(tag)
    assert (changed.status_code, changed.headers["etag"] != tag, changed.json() != {}) == (200, True, True)


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
        database_url=capacity.dsn,
        nats_url=nats_server.service_url("capacity"),
        kubeconfig=str(tmp_path / "none"),
        replica="capacity-test",
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


async def test_a_scheduler_that_places_nothing_though_gpus_are_free_is_unhealthy_by_name(stage: Stage) -> None:
    """Its turns are good: each replica believes that another has the round."""
    job = submitted(2, "l4")

    async def named() -> bool:
        body = (await stage.client.get("/health/capacity")).json()
        return body["status"] == "unhealthy" and any(
            fault.startswith("scheduler:") and "GPUs are free" in fault for fault in body["faults"]
        )

    async with connected(stage.capacity.dsn) as stranger:
        await stranger.execute(f"SELECT pg_advisory_lock({lock_key('plac')}, hashtext(current_schema()))")
        await stage.publish(job, 1)
        await eventually(named, "the scheduler's fault")
    await stage.grant_of(job)

    async def well() -> bool:
        return (await stage.client.get("/health/capacity")).status_code == 200

    await eventually(well, "healthy again")


async def test_a_job_whose_event_is_under_way_is_not_told_to_lack_its_place(stage: Stage) -> None:
    job, stranger = submitted(4, "l4"), uuid4()

    async def lacking(published_up_to: int) -> set[UUID]:
        request = msgspec.json.encode(UnplacedRequest([job.job_id, stranger], published_up_to))
        answer = await stage.nats.request(UNPLACED_SUBJECT, request, timeout=60)
        return set(msgspec.json.decode(answer.data, type=UnplacedReply).job_ids)

    async with connected(stage.capacity.dsn) as holder, holder.transaction():
        await holder.execute("LOCK TABLE inbox IN EXCLUSIVE MODE")  # no event can have its effect
        await stage.publish(job, 1)
        last = (await stage.nats.jetstream().stream_info(STREAM)).state.last_seq
        assert await lacking(0) == {job.job_id, stranger}, "so it seems"
        assert await lacking(last) == set()
    await stage.grant_of(job)
    await eventually(lambda: lacking(last), "the event has had its effect")
    assert await lacking(last) == {stranger}
