"""What is on a job's disk is told before the job is over, by its command's end or by exec into its running pod."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID

import msgspec
import pytest

from shared.contracts.disks import (
    CONTENT_SUBJECT,
    ContentReply,
    ContentReport,
    Listing,
    ListingEntry,
)
from tests.support.harness import eventually, flushed
from tests.support.jobs import Client, JobsWorld, new_disk_claimed, until_status
from tests.support.servers import ClusterSimulator
from tests.support.tools_pods import Tools, key_pages

DISK = "$GPUDEV_ROOT/home/dev"
WRITE = f"mkdir {DISK}/model; printf 12345 > {DISK}/model/weights"
WRITTEN = [ListingEntry("model", "directory", 5), ListingEntry("model/weights", "file", 5)]


@pytest.fixture
async def world(jobs_world: JobsWorld) -> AsyncIterator[JobsWorld]:
    async with key_pages(jobs_world), jobs_world.disks_answering(new_disk_claimed()):
        yield jobs_world


@asynccontextmanager
async def listening(world: JobsWorld) -> AsyncIterator[list[tuple[ContentReport, list[str]]]]:
    """What the disks service is told, each time with the events of the job until then."""
    told: list[tuple[ContentReport, list[str]]] = []

    async def keep(message: Any) -> None:
        report = msgspec.json.decode(message.data, type=ContentReport)
        pods = [meta for kind, meta in await world.objects(report.job_id) if kind == "pods"]
        assert [pod.deletion_timestamp for pod in pods] == [None], "who deletes first may ask in vain"
        told.append((report, await world.announced(report.job_id)))
        await message.respond(msgspec.json.encode(ContentReply(stored=True)))

    subscription = await world.broker.client.subscribe(CONTENT_SUBJECT, cb=keep)
    await flushed(world.broker.client)
    yield told
    await subscription.unsubscribe()


async def start(world: JobsWorld, client: Client, command: str | None) -> UUID:
    job_id = await world.submit(client, command=command, disk_name="data")
    await world.grant(job_id)
    return job_id


async def ended(world: JobsWorld, job_id: UUID) -> None:
    async def over() -> bool:
        return (await world.announced(job_id))[-1] == "ended"

    await eventually(over, "the job is over")


async def test_a_command_that_ends_leaves_the_listing_of_its_disk(world: JobsWorld, client: Client) -> None:
    async with listening(world) as told:
        job_id = await start(world, client, f"{WRITE}; exit 3")
        await until_status(client, job_id, "failed")
        await ended(world, job_id)
    report, events = told[0]
    assert (report.job_id, report.epoch, report.listing) == (job_id, 1, Listing(5, WRITTEN))
    assert events[-1] == "started", "it is told while the job still has the disk"
    assert str(report.disk_id) == str((await world.row(job_id))["disk_id"])


async def test_a_running_pod_is_asked_before_it_is_deleted(world: JobsWorld, client: Client) -> None:
    async with listening(world) as told:
        job_id = await start(world, client, f"{WRITE}; touch {DISK}/there; sleep 600")
        await until_status(client, job_id, "active")
        await client.post(f"/v1/jobs/{job_id}/cancel")
        await ended(world, job_id)
    report, events = told[0]
    assert report.listing.entries[: len(WRITTEN)] == WRITTEN
    assert "ended" not in events


@pytest.mark.parametrize("trouble", ["fail", "hang"])
async def test_a_pod_that_does_not_tell_holds_up_no_end(
    world: JobsWorld, client: Client, cluster_simulator: ClusterSimulator, trouble: str
) -> None:
    async with listening(world) as told:
        job_id = await start(world, client, None)
        await until_status(client, job_id, "active")
        Tools.take_over(cluster_simulator, (await world.row(job_id))["pod_uid"]).let("listing", trouble)
        await client.post(f"/v1/jobs/{job_id}/cancel")
        await until_status(client, job_id, "cancelled")
    assert told == []


async def test_a_disks_service_that_is_away_holds_up_no_end(world: JobsWorld, client: Client) -> None:
    job_id = await start(world, client, WRITE)
    await until_status(client, job_id, "completed")
    await ended(world, job_id)


async def test_a_job_without_a_disk_tells_nothing(jobs_world: JobsWorld) -> None:
    async with listening(jobs_world) as told, jobs_world.service() as client:
        job_id = await jobs_world.submit(client, command="exit 0")
        await jobs_world.grant(job_id)
        await until_status(client, job_id, "completed")
    assert told == []
