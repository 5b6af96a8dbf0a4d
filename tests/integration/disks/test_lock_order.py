"""Whoever locks a disk and what belongs to it does so in one order: no two wait for each other."""

import asyncio
from datetime import timedelta
from typing import Any
from uuid import uuid4

import sqlalchemy as sa

from services.disks import storage
from services.disks.operations.lease import lease_work
from services.disks.operations.read import lock_disk
from services.disks.operations.rename import record_rename
from services.disks.operations.write_name_tags import stale_tags, write_tags
from services.disks.settings import DisksSettings
from shared.database import Database, Statement
from tests.support.disk_process import WorkProcess
from tests.support.disk_scene import Scene
from tests.support.harness import eventually
from tests.support.servers import MotoServer

WAITING = Statement(
    sa.text("SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()")
)


async def test_a_worker_that_writes_down_tags_and_a_newer_rename_do_not_wait_for_each_other(
    disks_settings: DisksSettings, disks_database: Database, moto_server: MotoServer
) -> None:
    scene, process = Scene(disks_settings, disks_database, moto_server.client("ec2")), WorkProcess(disks_settings, None)
    await scene.prepare()
    context = process.context(scene.clock)
    named: dict[str, Any] = {"user_id": scene.user_id, "operation_id": uuid4(), "key": None, "now": scene.now}
    _, work = await record_rename(context, name="old", new_name="new", **named)
    assert work is not None
    stale = await stale_tags(disks_database, disk_id=scene.disk_id)

    async with disks_database.transaction() as tx:
        await lock_disk(tx, scene.disk_id)
        writing = asyncio.create_task(write_tags(context, work, stale.aws_ids, stale.name, {}))
        await eventually(lambda: disks_database.fetch_value(WAITING), "the worker waits for the disk")
        # as a newer rename does: it would wait for the worker, which waits for the disk
        await tx.fetch_all(storage.operations.SUPERSEDE_TAGGING, disk_id=scene.disk_id, now=scene.now)

    assert not await writing, "its operation is another's"
    assert await lease_work(disks_database, now=scene.now, lease_for=timedelta(minutes=1), limit=8) == []
    await process.close()
