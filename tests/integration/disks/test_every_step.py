"""The service dies at any instant of a disk's work and another goes on: one of everything, and nothing left behind.

An instant lies before and after each call to AWS and each write to the tables. They are not listed here: each run dies
one instant later than the one before, until a run is over before its death. So a step that is added is tested too.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta
from itertools import count
from uuid import UUID

import pytest

from services.disks.operations.read import read_disk
from services.disks.settings import DisksSettings
from shared.database import Database
from shared.idempotency import IdempotencyKey
from tests.support.crash import Crash
from tests.support.disk_process import WorkProcess
from tests.support.disk_scene import Scene
from tests.support.disks import snapshots_of_user, volumes_of
from tests.support.servers import MotoServer

pytestmark = pytest.mark.slow

Act = Callable[[Scene, WorkProcess, IdempotencyKey | None], Awaitable[UUID | None]]


async def die_everywhere(
    settings: DisksSettings, database: Database, moto: MotoServer, act: Act, *, before: Act | None = None
) -> AsyncIterator[Scene]:
    """The scene after a death at each instant and what a new process made of it, checked against AWS."""
    for instant in count():
        scene = Scene(settings, database, moto.client("ec2"))
        await scene.prepare()
        process, heir = WorkProcess(settings, instant), WorkProcess(settings, None)
        if before is not None:
            await before(scene, heir, None)
        try:
            await act(scene, process, scene.key)
            for _ in range(3):
                await scene.turn(process)
                scene.now += timedelta(seconds=60)
        except Crash:
            scene.now += timedelta(seconds=60)
        first = await act(scene, heir, scene.key)
        await scene.finish(heir)
        assert await act(scene, heir, scene.key) == first
        await scene.assert_aws_is_as_the_tables_say()
        crashed = process.points.crashed
        await process.close()
        await heir.close()
        yield scene
        if not crashed:
            # a service without any step would pass as well
            assert instant > 1
            return


async def test_a_death_at_any_instant_of_a_creation_leaves_one_disk_and_one_volume(
    disks_settings: DisksSettings, disks_database: Database, moto_server: MotoServer
) -> None:
    """Incident 4."""
    async for scene in die_everywhere(disks_settings, disks_database, moto_server, Scene.create):
        assert await scene.actions() == ["create"]
        assert len(await volumes_of(scene.cloud, scene.user_id)) == 2


async def test_a_death_at_any_instant_of_a_snapshot_leaves_one(
    disks_settings: DisksSettings, disks_database: Database, moto_server: MotoServer
) -> None:
    """Incident 4."""
    async for scene in die_everywhere(disks_settings, disks_database, moto_server, Scene.snapshot):
        assert await scene.actions() == ["create", "snapshot", "snapshot"]
        assert len(await snapshots_of_user(scene.cloud, scene.user_id)) == 2


async def test_a_death_at_any_instant_of_a_rename_leaves_one_name(
    disks_settings: DisksSettings, disks_database: Database, moto_server: MotoServer
) -> None:
    async for scene in die_everywhere(disks_settings, disks_database, moto_server, Scene.rename):
        assert await scene.actions() == ["create", "snapshot", "rename"]
        assert (await read_disk(scene.database, scene.disk_id)).name == "new"


async def test_a_death_at_any_instant_of_a_deletion_leaves_the_volume_and_one_answer(
    disks_settings: DisksSettings, disks_database: Database, moto_server: MotoServer
) -> None:
    async for scene in die_everywhere(disks_settings, disks_database, moto_server, Scene.delete):
        assert await scene.actions() == ["create", "snapshot", "delete"]
        assert len(await volumes_of(scene.cloud, scene.user_id)) == 1


async def test_a_death_at_any_instant_of_a_purge_leaves_nothing(
    disks_settings: DisksSettings, disks_database: Database, moto_server: MotoServer
) -> None:
    purging = die_everywhere(disks_settings, disks_database, moto_server, Scene.purge, before=Scene.delete)
    async for scene in purging:
        assert await scene.actions() == ["create", "snapshot", "delete", "purge"]
        assert await volumes_of(scene.cloud, scene.user_id) == []
        assert await snapshots_of_user(scene.cloud, scene.user_id) == []
