"""Several availability zones: a job's new disk is made where capacity says that the job starts soonest."""

from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

import msgspec
import pytest

from services.disks.settings import DisksSettings
from shared.contracts.capacity import ZONE_SUBJECT, ZoneReply, ZoneRequest
from shared.contracts.disks import Claim, DiskCreated
from shared.database import Database
from tests.support.disks import Stage, User, disks_stage
from tests.support.harness import flushed, nats_client
from tests.support.servers import MotoServer, stand_in_url

FIRST, SECOND, UNLISTED = "us-east-2a", "us-east-2b", "us-east-2c"
JOB = {"gpu_type": "h100", "gpu_count": 8, "duration_seconds": 3600}


class Capacity:
    """Stands in for the capacity service on NATS."""

    def __init__(self) -> None:
        self.zone: str | None = SECOND
        self.silent = False
        self.asked: list[ZoneRequest] = []

    async def answer(self, message: Any) -> None:
        self.asked.append(msgspec.json.decode(message.data, type=ZoneRequest))
        if not self.silent:
            await message.respond(msgspec.json.encode(ZoneReply(self.zone)))


@pytest.fixture
async def capacity(disks_settings: DisksSettings) -> AsyncIterator[Capacity]:
    stand_in = Capacity()
    async with nats_client(stand_in_url(disks_settings.nats_url)) as client:
        await client.subscribe(ZONE_SUBJECT, cb=stand_in.answer)
        await flushed(client)
        yield stand_in


@pytest.fixture
def zones() -> str:
    return f"{FIRST}, {SECOND}"


@pytest.fixture
async def stage(
    disks_settings: DisksSettings,
    disks_database: Database,
    moto_server: MotoServer,
    capacity: Capacity,
    zones: str,
) -> AsyncIterator[Stage]:
    del capacity  # it listens before anybody asks
    settings = msgspec.structs.replace(disks_settings, availability_zones=zones)
    async with disks_stage(settings, disks_database, moto_server.client("ec2")) as stage:
        yield stage


async def claimed(stage: Stage, user: User, name: str, **asked_for: Any) -> Claim:
    reply = await stage.jobs.claim(user, name, **asked_for)
    assert reply.claim is not None, reply
    return reply.claim


async def zone_in_aws(stage: Stage, user: User, disk_id: UUID) -> str:
    created = await stage.event(disk_id, DiskCreated, seconds=20)
    (volume,) = [one for one in await stage.volumes(user) if one["VolumeId"] == created.volume_id]
    assert volume["AvailabilityZone"] == created.availability_zone
    return created.availability_zone


async def test_a_jobs_new_disk_is_made_where_the_job_starts_soonest(stage: Stage, capacity: Capacity) -> None:
    user = stage.auth.add_user()

    claim = await claimed(stage, user, "data", **JOB)

    assert claim.availability_zone == SECOND
    assert await zone_in_aws(stage, user, claim.disk_id) == SECOND
    assert capacity.asked == [ZoneRequest(zones=(FIRST, SECOND), **JOB)]  # type: ignore[arg-type]


async def test_a_disk_that_is_there_stays_where_it_is_and_nobody_is_asked(stage: Stage, capacity: Capacity) -> None:
    user = stage.auth.add_user()
    created = await stage.create(user, "data")
    await stage.ended_operation(user, "data", created["operation_id"])

    claim = await claimed(stage, user, "data", **JOB)

    assert claim.availability_zone == FIRST
    assert capacity.asked == []


@pytest.mark.parametrize("zone", [None, UNLISTED])
async def test_a_job_that_runs_in_none_of_the_zones_gets_its_disk_in_the_first(
    stage: Stage, capacity: Capacity, zone: str | None
) -> None:
    capacity.zone = zone

    claim = await claimed(stage, stage.auth.add_user(), "data", **JOB)

    assert claim.availability_zone == FIRST


async def test_a_claim_does_not_wait_for_a_capacity_that_does_not_answer(stage: Stage, capacity: Capacity) -> None:
    """The claim's own caller waits 2 s."""
    capacity.silent = True

    claim = await claimed(stage, stage.auth.add_user(), "data", **JOB)

    assert claim.availability_zone == FIRST
    assert len(capacity.asked) == 1


async def test_a_claim_that_does_not_say_what_its_job_wants_gets_the_first_zone(
    stage: Stage, capacity: Capacity
) -> None:
    """It comes from a jobs service of the version before."""
    claim = await claimed(stage, stage.auth.add_user(), "data")

    assert (claim.availability_zone, capacity.asked) == (FIRST, [])


@pytest.mark.parametrize("zones", ["", SECOND])
async def test_where_there_is_one_zone_nobody_is_asked(stage: Stage, capacity: Capacity, zones: str) -> None:
    claim = await claimed(stage, stage.auth.add_user(), "data", **JOB)

    assert claim.availability_zone == (zones or FIRST)
    assert capacity.asked == []
