"""The claim RPC and the jobs' events over NATS, and the schema's migrations."""

from typing import Any
from uuid import uuid4

import msgspec

from services.disks.settings import DisksSettings
from shared.contracts.disks import DiskClaimed, DiskOperationFailed, DiskReleased
from shared.contracts.events import CloudEvent
from shared.database import Database
from shared.database.migrate import check, downgrade, upgrade
from tests.support.disks import RefusingAws, Stage, disks_stage
from tests.support.harness import eventually
from tests.support.servers import MotoServer, PostgresServer


async def test_a_disk_follows_the_life_of_its_job(disks: Stage) -> None:
    user, job = disks.auth.add_user(), uuid4()
    heard = await disks.jobs.listen_to("gpudev.v1.disks.>")

    reply = await disks.jobs.claim(user, "data", job_id=job, size_gb=20)
    assert reply.refusal is None
    assert reply.claim is not None
    disk_id = reply.claim.disk_id
    await disks.jobs.submitted(user, job, disk_id)
    claimed = await disks.event(disk_id, DiskClaimed)
    (volume,) = await disks.volumes(user)
    assert (claimed.job_id, claimed.volume_id) == (job, volume["VolumeId"])
    assert claimed.availability_zone == reply.claim.availability_zone
    held = (await disks.get(user, "/data")).json()
    assert (held["in_use"], held["reservation_id"]) == (True, str(job))
    refused = (await disks.jobs.claim(user, "data")).refusal
    assert refused is not None
    assert refused.kind == "conflict"
    assert str(job) in refused.text

    await disks.jobs.ended(user, job)

    await disks.event(disk_id, DiskReleased)
    freed = (await disks.get(user, "/data")).json()
    assert (freed["in_use"], freed["reservation_id"]) == (False, None)
    assert freed["last_used"] is not None
    wanted = ["created", "claimed", "released"]
    await eventually(lambda: types_of(heard, str(disk_id)) == wanted, "the events are published in order")


def types_of(heard: list[CloudEvent], disk_id: str) -> list[str]:
    return [event.type.split(".")[3] for event in heard if event.subject == disk_id]


async def test_a_claim_that_cannot_be_is_refused_with_its_kind(disks: Stage) -> None:
    user = disks.auth.add_user()
    await disks.create(user, "data", size_gb=50)

    for name, size_gb in (("data", 60), ("a b", None), ("new", 10001), ("new", 9)):
        reply = await disks.jobs.claim(user, name, size_gb=size_gb)
        assert reply.claim is None
        assert reply.refusal is not None
        assert reply.refusal.kind == "invalid"
    assert (await disks.get(user, "")).json()["total"] == 1


async def test_a_claim_whose_job_never_comes_is_let_go(
    disks_settings: DisksSettings, disks_database: Database, moto_server: MotoServer
) -> None:
    hasty = msgspec.structs.replace(disks_settings, claim_seconds=0.2)
    async with disks_stage(hasty, disks_database, moto_server.client("ec2")) as disks:
        user = disks.auth.add_user()
        await disks.jobs.claim(user, "data")

        async def free() -> bool:
            return (await disks.get(user, "/data")).json()["in_use"] is False

        await eventually(free, "the claim is dropped")
        assert (await disks.jobs.claim(user, "data")).claim is not None


async def test_a_job_learns_that_aws_refused_its_disk(
    disks_settings: DisksSettings, disks_database: Database, moto_server: MotoServer
) -> None:
    aws = RefusingAws(status=400, code="VolumeLimitExceeded")
    async with aws.serving() as url:
        settings = msgspec.structs.replace(disks_settings, aws_endpoint_url=url)
        async with disks_stage(settings, disks_database, moto_server.client("ec2")) as disks:
            user, job = disks.auth.add_user(), uuid4()
            reply = await disks.jobs.claim(user, "data", job_id=job)
            assert reply.claim is not None
            await disks.jobs.submitted(user, job, reply.claim.disk_id)

            failed = await disks.event(reply.claim.disk_id, DiskOperationFailed)

            assert (failed.job_id, failed.operation_id) == (job, None)
            assert "VolumeLimitExceeded" in failed.error


async def test_throttling_fails_nothing(
    disks_settings: DisksSettings, disks_database: Database, moto_server: MotoServer
) -> None:
    aws = RefusingAws(status=503, code="RequestLimitExceeded")
    async with aws.serving() as url:
        settings = msgspec.structs.replace(disks_settings, aws_endpoint_url=url)
        async with disks_stage(settings, disks_database, moto_server.client("ec2")) as disks:
            user = disks.auth.add_user()
            answer = await disks.create(user, "data")
            await eventually(lambda: aws.calls >= 3, "AWS is asked again")

            waiting = (await disks.get(user, f"/data/operations/{answer['operation_id']}")).json()

            assert (waiting["status"], waiting["error"]) == ("running", None)
    async with disks_stage(disks_settings, disks_database, moto_server.client("ec2")) as disks:
        disks.auth.know(user)
        assert (await disks.ended_operation(user, "data", answer["operation_id"]))["status"] == "completed"


def test_the_migrations_make_the_tables_of_the_code_and_can_be_undone(postgres_server: PostgresServer) -> None:
    dsn: Any = postgres_server.make_service_database("disks")
    upgrade("disks", dsn)
    check("disks", dsn)
    downgrade("disks", dsn)
    upgrade("disks", dsn)
    check("disks", dsn)
    postgres_server.drop_database(dsn)
