"""A rename of a disk with very many snapshots, some of which AWS refuses to tag while it throttles."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import msgspec
import pytest
import sqlalchemy as sa

from services.disks.domain.aws_objects import tags_of
from services.disks.settings import DisksSettings
from services.disks.storage.tables import snapshots
from shared.database import Database, Statement
from tests.support.aws_faults import TagFaults, before_aws
from tests.support.disks import Stage, User, disks_stage, now
from tests.support.harness import eventually
from tests.support.servers import MotoServer

pytestmark = pytest.mark.slow

COUNT = 1200
_ROWS = Statement(
    sa.text(
        "INSERT INTO snapshots (id, disk_id, snapshot_id, size_gb, status, name_tag, created_at, completed_at,"
        " updated_at) SELECT u.id, :disk_id, u.aws_id, 10, 'completed', 'old', u.at, u.at, u.at"
        " FROM unnest(CAST(:ids AS uuid[]), CAST(:aws_ids AS text[]), CAST(:times AS timestamptz[]))"
        " AS u(id, aws_id, at)"
    ).bindparams(
        sa.bindparam("disk_id", type_=sa.Uuid),
        sa.bindparam("ids", type_=sa.ARRAY(sa.Uuid)),
        sa.bindparam("aws_ids", type_=sa.ARRAY(sa.Text)),
        sa.bindparam("times", type_=sa.ARRAY(sa.DateTime(timezone=True))),
    )
)
_STALE = Statement(
    sa.select(sa.func.count())
    .select_from(snapshots)
    .where(snapshots.c.disk_id == sa.bindparam("disk_id", type_=sa.Uuid), snapshots.c.name_tag != "new")
)


async def many_snapshots(cloud: Any, database: Database, user: User, disk_id: UUID) -> list[str]:
    """Snapshots in AWS and in the table, oldest first; AWS's ids."""
    (volume,) = (
        await asyncio.to_thread(
            cloud.describe_volumes, Filters=[{"Name": "tag:gpudev:disk-id", "Values": [str(disk_id)]}]
        )
    )["Volumes"]
    ids = [uuid4() for _ in range(COUNT)]

    def take(snapshot: UUID) -> str:
        tags = [{"Key": k, "Value": v} for k, v in tags_of(disk_id, snapshot, user.user_id, "old").items()]
        answer = cloud.create_snapshot(
            VolumeId=volume["VolumeId"],
            Description=f"GPU Dev {snapshot}",
            TagSpecifications=[{"ResourceType": "snapshot", "Tags": tags}],
        )
        return str(answer["SnapshotId"])

    with ThreadPoolExecutor(4) as threads:
        aws_ids = await asyncio.to_thread(lambda: list(threads.map(take, ids)))
    begin = now() - timedelta(days=1)
    times = [begin + timedelta(seconds=number) for number in range(COUNT)]
    await database.execute(_ROWS, disk_id=disk_id, ids=ids, aws_ids=aws_ids, times=times)
    return aws_ids


async def names_in_aws(disks: Stage, user: User) -> dict[str, str]:
    return {
        str(snapshot["SnapshotId"]): next(tag["Value"] for tag in snapshot["Tags"] if tag["Key"] == "Name")
        for snapshot in await disks.snapshots(user)
    }


async def test_what_aws_refuses_of_1200_tags_is_listed_and_repaired_and_the_disk_is_right_all_along(
    disks_settings: DisksSettings, disks_database: Database, moto_server: MotoServer
) -> None:
    """The order of the tables is the worst: what is refused comes first and between, so it is met again and again."""
    cloud, trouble = moto_server.client("ec2"), TagFaults(())
    async with before_aws(moto_server.endpoint_url, trouble) as endpoint:
        settings = msgspec.structs.replace(
            disks_settings,
            aws_endpoint_url=endpoint,
            snapshots_newest=COUNT,
            rename_seconds=60.0,
            sweep_seconds=3600.0,  # it would adopt what the test has not written down yet
        )
        async with disks_stage(settings, disks_database, cloud) as disks:
            user, job = disks.auth.add_user(), uuid4()
            asked = await disks.create(user, "old", size_gb=10)
            disk_id = UUID((await disks.ended_operation(user, "old", asked["operation_id"]))["disk_id"])
            aws_ids = await many_snapshots(cloud, disks_database, user, disk_id)
            refused = {aws_ids[0], aws_ids[1], aws_ids[700]}
            trouble.refused |= refused

            renaming = asyncio.create_task(
                disks.client.post("/v1/disks/old/rename", json={"new_name": "new"}, headers=user.headers)
            )

            async def asked_for_tags() -> bool:
                return trouble.calls > 0

            await eventually(asked_for_tags, "AWS is asked for tags")
            assert not renaming.done()
            shown = (await disks.get(user, "/new")).json()
            listed = (await disks.get(user, "")).json()["disks"]
            claim = (await disks.jobs.claim(user, "new", job_id=job)).claim
            assert (shown["disk_name"], shown["snapshot_count"], shown["in_use"]) == ("new", COUNT, False)
            assert [disk["disk_name"] for disk in listed] == ["new"]
            assert claim is not None
            assert claim.disk_id == disk_id
            await disks.jobs.submitted(user, job, disk_id)
            await disks.claimed_by(disk_id, job)

            answer = await renaming

            assert answer.status_code == 200
            body = answer.json()
            assert body["message"] == f"Disk renamed from 'old' to 'new' ({COUNT - 3}/{COUNT} snapshots updated)"
            assert body["snapshots_updated"] == COUNT - 3
            assert sorted(body["errors"]) == sorted(f"{aws_id}: Access denied" for aws_id in refused)
            names = await names_in_aws(disks, user)
            assert {aws_id for aws_id, name in names.items() if name != "new"} == refused
            operation = (await disks.get(user, f"/new/operations/{body['operation_id']}")).json()
            assert not operation["completed"]

            trouble.refused.clear()

            assert (await disks.ended_operation(user, "new", body["operation_id"]))["status"] == "completed"
            assert set((await names_in_aws(disks, user)).values()) == {"new"}
            assert await disks_database.fetch_value(_STALE, disk_id=disk_id) == 0
            assert (await disks.get(user, "/new")).json()["snapshot_count"] == COUNT
