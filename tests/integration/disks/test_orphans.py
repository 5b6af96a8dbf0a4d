"""The sweep over AWS: what is ours is adopted or cleared away, what is others' is left alone."""

import asyncio
from argparse import Namespace
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import msgspec
import pytest
import sqlalchemy as sa
from prometheus_client import generate_latest

from deploy.local.region import AVAILABILITY_ZONE, REGION
from services.disks.api.administration import commands
from services.disks.domain.aws_objects import TAG_DISK, TAG_NAME, TAG_OPERATION, TAG_USER
from services.disks.domain.ledger import Findings
from services.disks.domain.snapshot import SnapshotState
from services.disks.operations.create import create_disk
from services.disks.operations.orphans import list_orphans, sweep
from services.disks.operations.read import list_snapshots, read_disk
from services.disks.operations.write_name_tags import stale_tags
from services.disks.settings import DisksSettings
from services.disks.storage.tables import operations, snapshots
from shared.audit import Act, audit_endpoint, begin_act
from shared.contracts.audit import AuditQuery
from shared.contracts.auth import Identity
from shared.contracts.disks import DiskSnapshotCompleted
from shared.database import Database, Statement
from shared.metrics import ORPHANS
from shared.orphans import Orphan
from tests.support.aws_faults import Outage, before_aws
from tests.support.disk_process import WorkProcess
from tests.support.disk_scene import Scene
from tests.support.disks import disks_context, disks_stage, events_of, new_disk, snapshots_of_user, volumes_of
from tests.support.harness import eventually
from tests.support.servers import MotoServer

SHOWN = 'gpudev_orphans{kind="volume"}'
SETTLED = timedelta(minutes=6)
_DISK_ID = sa.bindparam("disk_id", type_=sa.Uuid)
_FORGET_SNAPSHOTS = Statement(sa.delete(snapshots).where(snapshots.c.disk_id == _DISK_ID))
_FORGET_WORK = Statement(sa.delete(operations).where(operations.c.disk_id == _DISK_ID))
_SAY_DELETED = Statement(
    sa.update(snapshots).where(snapshots.c.disk_id == _DISK_ID).values(status=SnapshotState.DELETED)
)


_SAY_DELETED_ONE = Statement(
    sa.update(snapshots).where(snapshots.c.snapshot_id == sa.bindparam("aws_id")).values(status=SnapshotState.DELETED)
)
_FORGET_ONE = Statement(sa.delete(snapshots).where(snapshots.c.snapshot_id == sa.bindparam("aws_id")))


class Swept(Scene):
    """One disk with one snapshot, and a sweeper."""

    async def sweep(self, process: WorkProcess) -> Findings:
        return await sweep(process.context(self.clock))

    async def points(self) -> list[tuple[UUID, str | None, str]]:
        page = await list_snapshots(self.database, user_id=self.user_id, name="old", limit=50, offset=0)
        return [(point.id, point.snapshot_id, str(point.status)) for point in page.snapshots]

    async def aws_snapshots(self) -> list[str]:
        return sorted(found["SnapshotId"] for found in await snapshots_of_user(self.cloud, self.user_id))


def operator(scene: Swept) -> Identity:
    return Identity(user_id=1, username="op", key_id="o", expires_at=scene.now, is_operator=True)


async def seen_by_operators(process: WorkProcess, scene: Swept) -> list[Orphan]:
    return await list_orphans(process.context(scene.clock), asker=operator(scene))


@pytest.fixture
async def scene(disks_settings: DisksSettings, disks_database: Database, moto_server: MotoServer) -> Swept:
    scene = Swept(disks_settings, disks_database, moto_server.client("ec2"))
    await scene.prepare()
    return scene


@pytest.fixture
async def process(scene: Swept) -> AsyncIterator[WorkProcess]:
    process = WorkProcess(scene.settings, None)
    yield process
    await process.close()


async def copies(scene: Swept, source: dict[str, Any]) -> set[str]:
    """A scanner copies a snapshot, a backup tool takes one of its volume, both with all its tags; AWS's ids."""
    copied = await asyncio.to_thread(
        scene.cloud.copy_snapshot,
        SourceRegion=REGION,
        SourceSnapshotId=source["SnapshotId"],
        Description=f"[Copied {source['SnapshotId']} from {REGION}]",
    )
    await asyncio.to_thread(scene.cloud.create_tags, Resources=[copied["SnapshotId"]], Tags=source["Tags"])
    (volume,) = await volumes_of(scene.cloud, scene.user_id)
    taken = await asyncio.to_thread(
        scene.cloud.create_snapshot,
        VolumeId=volume["VolumeId"],
        Description="Created for policy: nightly",
        TagSpecifications=[{"ResourceType": "snapshot", "Tags": source["Tags"]}],
    )
    return {copied["SnapshotId"], taken["SnapshotId"]}


async def test_a_snapshot_of_ours_that_lost_its_row_is_adopted_once(scene: Swept, process: WorkProcess) -> None:
    """Incident 4: in the cloud and billed, gone in the database."""
    before = await scene.points()
    await scene.database.execute(_FORGET_SNAPSHOTS, disk_id=scene.disk_id)
    await scene.database.execute(_FORGET_WORK, disk_id=scene.disk_id)
    assert await scene.points() == []
    for _ in range(2):
        await scene.sweep(process)
    assert await scene.points() == before
    assert (await read_disk(scene.database, scene.disk_id)).snapshot_count == 1
    told = [event.type for event in await events_of(scene.database, scene.disk_id)]
    assert told.count(DiskSnapshotCompleted.type_name()) == 2


async def test_only_what_our_own_row_says_is_gone_is_deleted_and_only_when_aws_can_know_it(
    scene: Swept, process: WorkProcess
) -> None:
    (_, aws_id, _), *_ = await scene.points()
    await scene.database.execute(_SAY_DELETED, disk_id=scene.disk_id)
    findings = await scene.sweep(process)
    assert aws_id not in findings.leftover_snapshots
    assert await scene.aws_snapshots() == [aws_id]
    scene.now += SETTLED
    findings = await scene.sweep(process)
    assert aws_id in findings.leftover_snapshots
    assert await scene.aws_snapshots() == []
    assert len(await volumes_of(scene.cloud, scene.user_id)) == 1


async def test_what_is_nobodys_is_counted_and_left_alone(scene: Swept, process: WorkProcess) -> None:
    tags = [{"Key": TAG_DISK, "Value": str(uuid4())}, {"Key": TAG_USER, "Value": str(scene.user_id)}]
    tags += [{"Key": TAG_OPERATION, "Value": str(uuid4())}, {"Key": TAG_NAME, "Value": "old"}]
    volume = await asyncio.to_thread(
        scene.cloud.create_volume,
        AvailabilityZone=AVAILABILITY_ZONE,
        Size=10,
        TagSpecifications=[{"ResourceType": "volume", "Tags": tags}],
    )
    snapshot = await asyncio.to_thread(
        scene.cloud.create_snapshot,
        VolumeId=volume["VolumeId"],
        Description="by hand",
        TagSpecifications=[{"ResourceType": "snapshot", "Tags": tags}],
    )
    scene.now += SETTLED
    for _ in range(2):
        findings = await scene.sweep(process)
        assert volume["VolumeId"] in findings.orphan_volumes
        assert snapshot["SnapshotId"] in findings.orphan_snapshots
        assert ORPHANS.labels("volume")._value.get() == len(findings.orphan_volumes)
        assert ORPHANS.labels("snapshot")._value.get() == len(findings.orphan_snapshots)
    shown = {(one.kind, one.name): one.finding for one in await seen_by_operators(process, scene)}
    assert shown["volume", volume["VolumeId"]] == shown["snapshot", snapshot["SnapshotId"]] == "orphan"
    assert ("volume", (await read_disk(scene.database, scene.disk_id)).volume_id) not in shown
    assert len(await volumes_of(scene.cloud, scene.user_id)) == 2
    assert len(await scene.points()) == 1


async def test_what_somebody_deleted_behind_our_back_is_reported_and_its_row_stays(
    scene: Swept, process: WorkProcess
) -> None:
    disk = await read_disk(scene.database, scene.disk_id)
    (point,) = await scene.points()
    await asyncio.to_thread(scene.cloud.delete_snapshot, SnapshotId=point[1])
    await asyncio.to_thread(scene.cloud.delete_volume, VolumeId=disk.volume_id)
    findings = await scene.sweep(process)
    missing = {*findings.missing_volumes, *findings.missing_snapshots}
    assert not missing & {disk.volume_id, point[1]}, "AWS may not show yet what was made lately"
    scene.now += SETTLED
    findings = await scene.sweep(process)
    assert disk.volume_id in findings.missing_volumes
    assert point[1] in findings.missing_snapshots
    seen = {(one.finding, one.name) for one in await seen_by_operators(process, scene)}
    assert {("missing", disk.volume_id), ("missing", point[1])} <= seen
    assert await read_disk(scene.database, scene.disk_id) == disk
    assert await scene.points() == [point]


async def test_others_copies_are_neither_adopted_nor_counted_nor_deleted(scene: Swept, process: WorkProcess) -> None:
    """Incident 10."""
    (own,) = await snapshots_of_user(scene.cloud, scene.user_id)
    copied = await copies(scene, own)
    scene.now += SETTLED
    for _ in range(2):
        findings = await scene.sweep(process)
        assert not copied & {*findings.orphan_snapshots, *findings.leftover_snapshots}
    assert [point[1] for point in await scene.points()] == [own["SnapshotId"]]
    assert copied < set(await scene.aws_snapshots())


async def test_a_copy_is_not_waited_for_and_not_restored_from(
    disks_settings: DisksSettings, disks_database: Database, moto_server: MotoServer
) -> None:
    """Incident 10: it is newer and pending, and has our tags; what we asked for is found by what only it has."""
    outage = Outage("unseen")
    async with before_aws(moto_server.endpoint_url, outage) as endpoint_url:
        settings = msgspec.structs.replace(disks_settings, aws_endpoint_url=endpoint_url)
        scene = Swept(settings, disks_database, moto_server.client("ec2"))
        await scene.prepare()
        process = WorkProcess(settings, None)
        known = await scene.aws_snapshots()
        point_id = await scene.snapshot(process, key=None)
        outage.on = True
        await scene.turn(process)
        (taken,) = [s for s in await snapshots_of_user(scene.cloud, scene.user_id) if s["SnapshotId"] not in known]
        copied = await copies(scene, taken)
        outage.on = False
        await scene.finish(process)
        assert (point_id, taken["SnapshotId"], SnapshotState.COMPLETED) in await scene.points()
        new = new_disk(scene.user_id, "another", at=scene.now)
        await create_disk(scene.context, new=new, key=None, from_snapshot=str(point_id))
        await scene.turn(process)
        await process.close()
    found: list[dict[str, Any]] = await volumes_of(scene.cloud, scene.user_id)
    assert [volume["SnapshotId"] for volume in found if volume.get("SnapshotId")] == [taken["SnapshotId"]]
    assert copied < set(await scene.aws_snapshots())


async def test_a_tag_that_is_spoilt_while_its_disk_is_purged_leaves_no_work_without_end(
    scene: Swept, process: WorkProcess
) -> None:
    await scene.delete(process, None)
    await scene.purge(process, None)
    (volume,) = await volumes_of(scene.cloud, scene.user_id)
    tags = [{"Key": TAG_NAME, "Value": "spoilt"}]
    await asyncio.to_thread(scene.cloud.create_tags, Resources=[volume["VolumeId"]], Tags=tags)
    await scene.sweep(process)
    assert "tag" in await scene.actions()
    # were the volume gone before its turn comes, AWS would refuse the tag for ever
    assert (await stale_tags(scene.database, disk_id=scene.disk_id)).aws_ids == []
    await scene.finish(process)
    assert await volumes_of(scene.cloud, scene.user_id) == []


async def test_a_sweep_that_only_reports_changes_nothing_and_says_what_it_would_have_done(
    scene: Swept, process: WorkProcess
) -> None:
    """After a restore rows are older than AWS: nothing that they do not know, or think gone, may be touched."""
    (_, deleted, _), *_ = await scene.points()
    await scene.snapshot(process, key=None)
    await scene.finish(process)
    forgotten = next(aws_id for aws_id in await scene.aws_snapshots() if aws_id != deleted)
    await scene.database.execute(_SAY_DELETED_ONE, aws_id=deleted)
    await scene.database.execute(_FORGET_ONE, aws_id=forgotten)
    (volume,) = await volumes_of(scene.cloud, scene.user_id)
    spoilt = [{"Key": TAG_NAME, "Value": "spoilt"}]
    await asyncio.to_thread(scene.cloud.create_tags, Resources=[volume["VolumeId"]], Tags=spoilt)
    scene.now += SETTLED
    before = await scene.points(), await scene.actions(), await read_disk(scene.database, scene.disk_id)

    scene.settings = msgspec.structs.replace(scene.settings, sweep="report")
    findings = await sweep(disks_context(scene.settings, scene.database, ec2=process.ec2, clock=scene.clock))

    assert (await scene.points(), await scene.actions(), await read_disk(scene.database, scene.disk_id)) == before
    assert set(await scene.aws_snapshots()) == {deleted, forgotten}
    shown = await list_orphans(
        disks_context(scene.settings, scene.database, ec2=process.ec2, clock=scene.clock), asker=operator(scene)
    )
    (leftover,) = [one for one in shown if one.name == deleted]
    assert (leftover.finding, "GPUDEV_SWEEP is report" in leftover.message) == ("leftover", True)
    assert set(await scene.aws_snapshots()) == {deleted, forgotten}, "looking changes nothing"
    said = findings.aws_ids()
    assert deleted in said["leftover_snapshots"]
    assert forgotten in said["adoptions"]
    assert volume["VolumeId"] in said["names"]
    acting = msgspec.structs.replace(scene.settings, sweep="act")
    context = disks_context(acting, scene.database, ec2=process.ec2, clock=scene.clock)
    by_operators = {command.name: command for command in commands(context)}
    begin_act(Act(action="sweep"))
    shown = await by_operators["list-orphans"].run(Namespace())
    assert {f"leftover_snapshots  {deleted}", f"adoptions  {forgotten}"} <= set(shown.splitlines())
    assert set(await scene.aws_snapshots()) == {deleted, forgotten}
    told = audit_endpoint(scene.database)
    assert (await told(AuditQuery(limit=50, action="sweep"))).entries == []
    await by_operators["sweep"].run(Namespace())
    entries = (await told(AuditQuery(limit=50, action="sweep"))).entries
    assert {(one.object_kind, one.object_id, one.object_name) for one in entries} == {
        ("snapshot", forgotten, "old"),
        ("disk", str(scene.disk_id), "old"),
        ("snapshot", deleted, None),
    }
    assert await scene.aws_snapshots() == [forgotten]
    assert [point[1] for point in await scene.points()] == [forgotten]


async def test_a_volume_of_before_is_marked_for_the_driver_that_attaches_it(scene: Swept, process: WorkProcess) -> None:
    """AWS's policy for the driver lets it at volumes with this tag alone."""
    (volume,) = await volumes_of(scene.cloud, scene.user_id)
    mark = {"Key": "ebs.csi.aws.com/cluster", "Value": "true"}
    assert mark in volume["Tags"]
    await asyncio.to_thread(scene.cloud.delete_tags, Resources=[volume["VolumeId"]], Tags=[mark])

    await scene.sweep(process)

    (volume,) = await volumes_of(scene.cloud, scene.user_id)
    assert mark in volume["Tags"]
    assert (await scene.sweep(process)).unmarked_volumes == []


async def test_the_service_sweeps_by_itself_and_shows_what_it_found(
    disks_settings: DisksSettings, disks_database: Database, moto_server: MotoServer
) -> None:
    cloud = moto_server.client("ec2")
    tags = [{"Key": TAG_DISK, "Value": str(uuid4())}]
    made = await asyncio.to_thread(
        cloud.create_volume,
        AvailabilityZone=AVAILABILITY_ZONE,
        Size=10,
        TagSpecifications=[{"ResourceType": "volume", "Tags": tags}],
    )
    ORPHANS.labels("volume").set(0)
    async with disks_stage(disks_settings, disks_database, cloud) as stage:

        async def shown() -> bool:
            metrics = generate_latest().decode()
            return any(float(line.split()[1]) > 0 for line in metrics.splitlines() if line.startswith(SHOWN))

        await eventually(shown, "the orphan is in the metrics")
        users = {True: stage.auth.add_user(is_operator=True), False: stage.auth.add_user()}
        answers = {
            is_operator: await stage.client.get("/v1/orphans/aws", headers=user.headers)
            for is_operator, user in users.items()
        }
    assert answers[False].json() == {"detail": "Only operators may look for orphans"}
    assert answers[True].status_code == 200, answers[True].text
    (orphan,) = [one for one in answers[True].json()["orphans"] if one["name"] == made["VolumeId"]]
    assert (orphan["kind"], orphan["finding"], orphan["job_id"], orphan["since"]) == ("volume", "orphan", None, None)
