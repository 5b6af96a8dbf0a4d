"""AWS is down, throttles, is slow or shows nothing yet: what a disk is stays right, and its work goes on afterwards."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from uuid import UUID, uuid4

import msgspec
import pytest

from services.disks.adapters import ec2 as ec2_module
from services.disks.domain.disk import DiskState
from services.disks.domain.operation import OperationStatus
from services.disks.domain.refusals import DiskBackingUp, DiskBeingMade, DiskInUse
from services.disks.operations.claim import claim_disk, confirm_claim
from services.disks.operations.create import create_disk
from services.disks.operations.delete import delete_disk, restore_disk
from services.disks.operations.read import find_disk_by_id, get_operation, list_snapshots
from services.disks.operations.rename import rename_disk
from services.disks.operations.write_name_tags import report_tags
from services.disks.settings import DisksSettings
from shared.contracts.disks import DiskClaimed, DiskPurged
from shared.database import Database
from tests.support.aws_faults import Outage, TagFaults, before_aws
from tests.support.disk_process import WorkProcess
from tests.support.disk_scene import Scene
from tests.support.disks import events_of, new_claim, new_disk
from tests.support.servers import MotoServer

OUTAGES = ("down", "throttled", "slow", "unseen")
Act = Callable[[Scene, WorkProcess], Awaitable[UUID | None]]


@pytest.fixture(autouse=True)
def _short_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ec2_module, "_READ_SECONDS", 0.3)


@asynccontextmanager
async def scene_before(
    outage: Outage, settings: DisksSettings, database: Database, moto: MotoServer
) -> AsyncIterator[tuple[Scene, WorkProcess]]:
    """A disk with a snapshot, made while all was well."""
    async with before_aws(moto.endpoint_url, outage) as endpoint_url:
        settings = msgspec.structs.replace(settings, aws_endpoint_url=endpoint_url, rename_seconds=0.2)
        scene = Scene(settings, database, moto.client("ec2"))
        await scene.prepare()
        process = WorkProcess(scene.settings, None)
        try:
            yield scene, process
        finally:
            await process.close()


async def create(scene: Scene, process: WorkProcess) -> UUID:
    return await scene.create(process, key=None)


async def create_from(scene: Scene, process: WorkProcess) -> UUID:
    (point,) = (await list_snapshots(scene.database, user_id=scene.user_id, name="old", limit=1, offset=0)).snapshots
    new = new_disk(scene.user_id, "another", at=scene.now)
    scene.disk_id = new.disk_id
    await create_disk(process.context(scene.clock), new=new, key=None, from_snapshot=str(point.id))
    return new.operation_id


async def snapshot(scene: Scene, process: WorkProcess) -> UUID:
    return await scene.snapshot(process, key=None)


async def rename(scene: Scene, process: WorkProcess) -> UUID:
    return await scene.rename(process, key=None)


async def claim_new(scene: Scene, process: WorkProcess) -> None:
    job_id = uuid4()
    context = process.context(scene.clock)
    disk = await claim_disk(context, wanted=new_claim(scene.user_id, "another", job_id=job_id, at=scene.now))
    scene.disk_id = disk.id
    async with process.database.transaction() as tx:
        await confirm_claim(tx, context, job_id=job_id, disk_id=disk.id, now=scene.now)


async def delete_and_restore(scene: Scene, process: WorkProcess) -> UUID:
    await scene.delete(process, key=None)
    outcome = await restore_disk(
        process.context(scene.clock),
        user_id=scene.user_id,
        name="old",
        operation_id=uuid4(),
        key=None,
        now=scene.now,
    )
    return outcome.answer.id


async def purge(scene: Scene, process: WorkProcess) -> None:
    await scene.delete(process, key=None)
    await scene.purge(process, key=None)


@pytest.mark.parametrize("kind", OUTAGES)
@pytest.mark.parametrize("act", [create, create_from, claim_new, snapshot, rename, delete_and_restore, purge])
async def test_what_is_asked_during_an_outage_is_done_once_after_it_and_nothing_wrong_is_told_meanwhile(
    disks_settings: DisksSettings, disks_database: Database, moto_server: MotoServer, act: Act, kind: str
) -> None:
    """Incident 11: neither silence nor throttling of AWS reads as free, as gone or as failed."""
    outage = Outage(kind)
    async with scene_before(outage, disks_settings, disks_database, moto_server) as (scene, process):
        outage.on = True
        operation_id = await act(scene, process)
        for _ in range(6):
            scene.now += timedelta(seconds=4)
            await scene.turn(process)
            await tell_nothing_wrong(scene, act, operation_id)
        assert outage.calls or act is delete_and_restore
        outage.on = False
        await scene.finish(process)
        await scene.assert_aws_is_as_the_tables_say()
        disk = await find_disk_by_id(scene.database, scene.disk_id)
        assert disk is not None
        assert disk.state is (DiskState.PURGED if act is purge else DiskState.AVAILABLE)
        if operation_id is not None:
            assert await status_of(scene, disk.name, operation_id) is OperationStatus.COMPLETED
        told = [event.type for event in await events_of(scene.database, disk.id)]
        assert told.count(DiskClaimed.type_name()) == (act is claim_new)


async def tell_nothing_wrong(scene: Scene, act: Act, operation_id: UUID | None) -> None:
    disk = await find_disk_by_id(scene.database, scene.disk_id)
    assert disk is not None
    status = None if operation_id is None else await status_of(scene, disk.name, operation_id)
    assert status is not OperationStatus.FAILED
    if status is OperationStatus.COMPLETED or disk.state is DiskState.PURGED:
        # it need not have asked AWS for what AWS does not answer
        await scene.assert_aws_is_as_the_tables_say()
    elif act is snapshot:
        assert disk.backing_up
        with pytest.raises(DiskBackingUp):
            await delete(scene, "old")
    elif act is claim_new:
        assert disk.state is DiskState.CREATING
        assert disk.job_id is not None
        assert await events_of(scene.database, disk.id) == []
        with pytest.raises(DiskInUse):
            await claim_disk(scene.context, wanted=new_claim(scene.user_id, "another", at=scene.now))
    elif act in {create, create_from}:
        assert disk.state is DiskState.CREATING
        with pytest.raises(DiskBeingMade):
            await delete(scene, "another")


async def delete(scene: Scene, name: str) -> None:
    await delete_disk(scene.context, user_id=scene.user_id, name=name, operation_id=uuid4(), key=None, now=scene.now)


async def status_of(scene: Scene, name: str, operation_id: UUID) -> OperationStatus:
    operation = await get_operation(scene.database, user_id=scene.user_id, name=name, operation_id=str(operation_id))
    return operation.status


@pytest.mark.parametrize("kind", ["down", "throttled", "slow"])
async def test_a_disk_is_not_told_gone_before_aws_has_said_that_its_volume_is(
    disks_settings: DisksSettings, disks_database: Database, moto_server: MotoServer, kind: str
) -> None:
    """Incident 11: its snapshots are deleted, then there is no answer about the volume."""
    outage = Outage(kind, only="DeleteVolume")
    async with scene_before(outage, disks_settings, disks_database, moto_server) as (scene, process):
        outage.on = True
        await purge(scene, process)
        while outage.calls < 3:
            scene.now += timedelta(seconds=10)
            await scene.turn(process)
            disk = await find_disk_by_id(scene.database, scene.disk_id)
            assert disk is not None
            assert disk.state is DiskState.PURGING
        outage.on = False
        await scene.finish(process)
        await scene.assert_aws_is_as_the_tables_say()
        told = [event.type for event in await events_of(scene.database, scene.disk_id)]
        assert told.count(DiskPurged.type_name()) == 1


@pytest.mark.parametrize("kind", OUTAGES)
async def test_a_disk_in_use_stays_so_whatever_aws_answers(
    disks_settings: DisksSettings, disks_database: Database, moto_server: MotoServer, kind: str
) -> None:
    """Incident 11: "in use" stays true, delete and rename are refused, nobody else gets the disk."""
    outage = Outage(kind)
    async with scene_before(outage, disks_settings, disks_database, moto_server) as (scene, process):
        job_id = uuid4()
        await claim_disk(scene.context, wanted=new_claim(scene.user_id, "old", job_id=job_id, at=scene.now))
        outage.on = True
        for _ in range(3):
            await scene.turn(process)
            disk = await find_disk_by_id(scene.database, scene.disk_id)
            assert disk is not None
            assert disk.job_id == job_id
            for refused in (scene.delete(process, key=None), scene.rename(process, key=None)):
                with pytest.raises(DiskInUse):
                    await refused
            with pytest.raises(DiskInUse):
                await claim_disk(scene.context, wanted=new_claim(scene.user_id, "old", at=scene.now))


async def test_the_volume_of_a_disk_that_is_renamed_while_it_is_made_is_no_error(
    disks_settings: DisksSettings, disks_database: Database, moto_server: MotoServer
) -> None:
    scene, process = Scene(disks_settings, disks_database, moto_server.client("ec2")), WorkProcess(disks_settings, None)
    new = new_disk(scene.user_id, "old", at=scene.now)
    await create_disk(scene.context, new=new, key=None)
    await scene.rename(process, key=None)
    await scene.turn(process)  # the volume is there now, and has the old name yet
    disk = await find_disk_by_id(scene.database, new.disk_id)
    assert disk is not None
    assert (disk.name, disk.name_tag) == ("new", "old")

    report = await report_tags(process.database, disk_id=new.disk_id, silent=False)

    assert (report.updated, report.total, report.errors) == (0, 0, [])
    await process.close()


async def test_a_tag_that_is_refused_is_told_and_repaired_and_the_disk_is_right_all_along(
    disks_settings: DisksSettings, disks_database: Database, moto_server: MotoServer
) -> None:
    """Incident 12: the second of three tags is refused."""
    trouble = TagFaults([])
    async with before_aws(moto_server.endpoint_url, trouble) as endpoint_url:
        settings = msgspec.structs.replace(disks_settings, aws_endpoint_url=endpoint_url)
        scene = Scene(settings, disks_database, moto_server.client("ec2"))
        await scene.prepare()
        process = WorkProcess(settings, None)
        for _ in range(2):
            await scene.snapshot(process, key=None)
            await scene.finish(process)
        page = await list_snapshots(scene.database, user_id=scene.user_id, name="old", limit=9, offset=0)
        refused = page.snapshots[1]
        trouble.refused.add(str(refused.snapshot_id))

        answered = await rename_disk(
            process.context(scene.clock), user_id=scene.user_id, name="old", new_name="new", key=None
        )

        report = answered.answer.report
        assert (report.updated, report.total, len(report.errors)) == (2, 3, 1)
        assert str(refused.snapshot_id) in report.errors[0]
        scene.now += timedelta(seconds=60)
        await scene.turn(process)
        shown = await list_snapshots(scene.database, user_id=scene.user_id, name="new", limit=9, offset=0)
        assert shown == page
        new = new_disk(scene.user_id, "another", at=scene.now)
        await create_disk(scene.context, new=new, key=None, from_snapshot=str(refused.id))
        await scene.turn(process)
        assert (await find_disk_by_id(scene.database, new.disk_id)).state is DiskState.AVAILABLE  # type: ignore[union-attr]
        trouble.refused.clear()
        await scene.finish(process)
        await scene.assert_aws_is_as_the_tables_say()
        await process.close()


@pytest.mark.parametrize("act", [create_from, snapshot])
async def test_what_aws_does_not_know_yet_is_waited_for_and_what_it_never_knows_fails(
    disks_settings: DisksSettings, disks_database: Database, moto_server: MotoServer, act: Act
) -> None:
    """EC2 is eventually consistent: a call that names what was just made may be told that there is no such thing."""
    for minutes, expected in ((10, OperationStatus.COMPLETED), (20, OperationStatus.FAILED)):
        outage = Outage("unknown")
        async with scene_before(outage, disks_settings, disks_database, moto_server) as (scene, process):
            outage.on = True
            operation_id = await act(scene, process)
            assert operation_id is not None
            for _ in range(minutes):
                await scene.turn(process)
                scene.now += timedelta(minutes=1)
            await scene.turn(process)
            assert outage.calls
            outage.on = False
            name = "old" if act is snapshot else "another"
            for _ in range(20):
                scene.now += timedelta(minutes=1)
                await scene.turn(process)
                if (await status_of(scene, name, operation_id)).ended:
                    break
            assert await status_of(scene, name, operation_id) is expected
            await scene.assert_aws_is_as_the_tables_say()
