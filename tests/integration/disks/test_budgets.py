"""The calls of one pass never add up past its budget: it ends before, counts as good, and the next one goes on."""

import asyncio
from datetime import timedelta

import sqlalchemy as sa

from services.disks.adapters.ec2 import CALL_SECONDS
from services.disks.domain.disk import DiskState
from services.disks.domain.snapshot import SnapshotState
from services.disks.operations.lease import lease_work, postpone
from services.disks.operations.orphans import sweep
from services.disks.operations.read import read_disk, snapshots_of
from services.disks.settings import DisksSettings
from services.disks.storage.tables import snapshots
from services.disks.workers.removals import purge_disk
from shared.database import Database, Statement
from shared.leased_worker import Budget
from tests.support.disk_process import WorkProcess
from tests.support.disk_scene import Scene
from tests.support.disks import snapshots_of_user
from tests.support.servers import MotoServer

SAY_DELETED = Statement(
    sa.update(snapshots).where(snapshots.c.disk_id == sa.bindparam("disk_id")).values(status=SnapshotState.DELETED)
)
AT_ONCE = timedelta(0)
MINUTE = timedelta(minutes=1)


class Calls(Budget):
    """Has time for so many calls."""

    def __init__(self, calls: int) -> None:
        super().__init__(1000.0)
        self._calls = calls

    @property
    def left_seconds(self) -> float:
        return 1000.0 if self._calls > 0 else 1.0

    def call(self, seconds: float, *, leaving_seconds: float = 0.0) -> asyncio.Timeout:
        assert self._calls > 0, "a call is begun that the budget has no time for"
        self._calls -= 1
        return asyncio.timeout(seconds + leaving_seconds)


async def test_a_sweep_that_has_no_time_left_says_what_it_found_and_does_the_rest_the_next_time(
    disks_settings: DisksSettings, disks_database: Database, moto_server: MotoServer
) -> None:
    scene, process = Scene(disks_settings, disks_database, moto_server.client("ec2")), WorkProcess(disks_settings, None)
    await scene.prepare()
    await disks_database.execute(SAY_DELETED, disk_id=scene.disk_id)
    scene.now += timedelta(minutes=6)

    late = await sweep(process.context(scene.clock), act_seconds=CALL_SECONDS - 1)
    left = len(await snapshots_of_user(scene.cloud, scene.user_id))
    in_time = await sweep(process.context(scene.clock))

    assert late.leftover_snapshots == in_time.leftover_snapshots != []
    assert (left, len(await snapshots_of_user(scene.cloud, scene.user_id))) == (1, 0)
    await process.close()


async def test_a_purge_of_many_snapshots_takes_several_passes(
    disks_settings: DisksSettings, disks_database: Database, moto_server: MotoServer
) -> None:
    scene, process = Scene(disks_settings, disks_database, moto_server.client("ec2")), WorkProcess(disks_settings, None)
    await scene.prepare()
    for _ in range(2):
        await scene.snapshot(process, key=None)
        await scene.finish(process)
    await scene.delete(process, key=None)
    await scene.purge(process, key=None)

    left = []
    for _ in range(2):
        (work,) = await lease_work(disks_database, now=scene.now, lease_for=MINUTE, limit=1)
        rest = await purge_disk(process.context(scene.clock), work, Calls(2))
        left.append((rest, len(await snapshots_of(disks_database, scene.disk_id, SnapshotState.DELETING))))
        await postpone(disks_database, work=work, until=scene.now, failures=0)

    assert left == [(AT_ONCE, 1), (None, 0)]
    assert (await read_disk(disks_database, scene.disk_id)).state is DiskState.PURGED
    await scene.assert_aws_is_as_the_tables_say()
    await process.close()
