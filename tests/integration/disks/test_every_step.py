"""The service dies at any instant of a disk's work and another goes on: one of everything, and nothing left behind.

An instant lies before and after each call to AWS and each write to the tables. They are not listed here: each run dies
one instant later than the one before, until a run is over before its death. So a step that is added is tested too.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any
from uuid import UUID, uuid4

import pytest
import sqlalchemy as sa

from services.disks.domain.disk import DiskState
from services.disks.ebs import Ebs
from services.disks.operations.disks import create_disk, delete_disk
from services.disks.operations.purges import begin_purges
from services.disks.operations.snapshots import request_snapshot
from services.disks.queries import read_disk
from services.disks.reconciler.loop import Reconciler
from services.disks.reconciler.renaming import Renaming
from services.disks.settings import DisksSettings
from services.disks.storage.tables import operations, snapshots
from shared.database import Database, Statement, Transaction
from shared.encryption import Cipher
from shared.idempotency import IdempotencyKey
from tests.support.disks import LIMITS, RETENTION, Silent, new_disk, new_user_id, snapshots_of_user, volumes_of
from tests.support.servers import MotoServer

pytestmark = pytest.mark.slow

RETENTION_TIME = timedelta(days=30)
_DISK_ID = sa.bindparam("disk_id", type_=sa.Uuid)
_UNFINISHED = Statement(
    sa.select(sa.func.count()).where(operations.c.disk_id == _DISK_ID, operations.c.status != "completed")
)
_KEPT = Statement(
    sa.select(snapshots.c.snapshot_id).where(snapshots.c.disk_id == _DISK_ID, snapshots.c.status == "completed")
)
_ACTIONS = Statement(
    sa.select(operations.c.action).where(operations.c.disk_id == _DISK_ID).order_by(operations.c.created_at)
)


class Killed(BaseException):
    """The process died here."""


class Fuse:
    """Ends the process at the instant of this number; None: never."""

    def __init__(self, instant: int | None) -> None:
        self._left = instant

    @property
    def burnt(self) -> bool:
        """Whether the instant was reached."""
        return self._left is not None and self._left < 0

    def step(self) -> None:
        """An instant passes; the dead do nothing more."""
        if self._left is not None:
            self._left -= 1
            if self._left < 0:
                raise Killed


class MortalDatabase(Database):
    """Dies before or after a write."""

    def __init__(self, dsn: str, fuse: Fuse) -> None:
        super().__init__(dsn, pool_size=4)
        self._fuse = fuse

    async def execute(self, statement: Statement, **parameters: Any) -> int:
        self._fuse.step()
        affected = await super().execute(statement, **parameters)
        self._fuse.step()
        return affected

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Transaction]:
        async with super().transaction() as tx:
            yield tx
            self._fuse.step()
        self._fuse.step()


class MortalEbs(Ebs):
    """Dies before or after a call to AWS."""

    def __init__(self, settings: DisksSettings, fuse: Fuse) -> None:
        super().__init__(region=settings.aws_region, endpoint_url=settings.aws_endpoint_url)
        self._fuse = fuse

    async def _call(self, *args: Any, **named: Any) -> Any:
        self._fuse.step()
        answer = await super()._call(*args, **named)
        self._fuse.step()
        return answer


class Process:
    """One run of the service, as far as it works on disks."""

    def __init__(self, scene: "Scene", instant: int | None) -> None:
        self.fuse = Fuse(instant)
        self.database = MortalDatabase(scene.settings.database_url, self.fuse)
        self.ebs = MortalEbs(scene.settings, self.fuse)
        self.scene = scene

    async def turn(self) -> None:
        worker = Reconciler(
            database=self.database, relay=Silent(), ebs=self.ebs, retention=RETENTION, clock=self.scene.clock
        )
        await worker.turn()

    async def close(self) -> None:
        await self.ebs.close()
        await self.database.close()


class Scene:
    """One disk with one snapshot."""

    def __init__(self, settings: DisksSettings, database: Database, cloud: Any) -> None:
        self.settings = settings
        self.database = database
        self.cloud = cloud
        self.now = datetime.now(UTC)
        self.cipher = Cipher(settings.secret_keys)
        self.user_id = new_user_id()
        self.disk_id = uuid4()
        self.key = IdempotencyKey(self.user_id, "the request", b"")

    def clock(self) -> datetime:
        return self.now

    async def prepare(self) -> None:
        new = new_disk(self.user_id, "old", at=self.now)
        self.disk_id = new.disk_id
        await create_disk(self.database, Silent(), new=new, limits=LIMITS, key=None, cipher=self.cipher)
        process = Process(self, None)
        await self.finish(process)
        await self.snapshot(process, key=None)
        await self.finish(process)
        await process.close()

    async def finish(self, process: Process) -> None:
        for _ in range(20):
            self.now += timedelta(seconds=60)
            await process.turn()
            if not await self.database.fetch_value(_UNFINISHED, disk_id=self.disk_id):
                return
        raise AssertionError("the work does not end")

    async def snapshot(self, process: Process, key: IdempotencyKey | None) -> UUID:
        outcome = await request_snapshot(
            process.database, Silent(), Silent(), user_id=self.user_id, name="old", operation_id=uuid4(), key=key,
            cipher=self.cipher, now=self.now,
        )  # fmt: skip
        return outcome.answer.id

    async def delete(self, process: Process, key: IdempotencyKey | None) -> UUID:
        outcome = await delete_disk(
            process.database, Silent(), user_id=self.user_id, name="old", operation_id=uuid4(),
            retention=RETENTION_TIME, key=key, cipher=self.cipher, now=self.now,
        )  # fmt: skip
        return outcome.answer.id

    async def rename(self, process: Process, key: IdempotencyKey | None) -> UUID:
        renaming = Renaming(
            database=process.database, relay=Silent(), ebs=process.ebs, cipher=self.cipher, seconds=15.0,
            clock=self.clock,
        )  # fmt: skip
        outcome = await renaming.rename(user_id=self.user_id, name="old", new_name="new", key=key)
        return outcome.answer.renamed.operation_id

    async def purge(self, process: Process, key: IdempotencyKey | None) -> None:
        del key
        self.now += RETENTION_TIME
        await begin_purges(process.database, now=self.now)

    async def actions(self) -> list[str]:
        return [str(row["action"]) for row in await self.database.fetch_all(_ACTIONS, disk_id=self.disk_id)]

    async def assert_aws_is_as_the_tables_say(self) -> None:
        disk = await read_disk(self.database, self.disk_id)
        rows = await self.database.fetch_all(_KEPT, disk_id=self.disk_id)
        volumes = await volumes_of(self.cloud, self.user_id)
        taken = await snapshots_of_user(self.cloud, self.user_id)
        purged = disk.state is DiskState.PURGED
        assert [volume["VolumeId"] for volume in volumes] == ([] if purged else [disk.volume_id])
        assert sorted(snapshot["SnapshotId"] for snapshot in taken) == sorted(row["snapshot_id"] for row in rows)
        named = [tag["Value"] for found in volumes + taken for tag in found["Tags"] if tag["Key"] == "Name"]
        assert set(named) <= {disk.name}


Act = Callable[[Scene, Process, IdempotencyKey | None], Awaitable[UUID | None]]


async def die_everywhere(
    settings: DisksSettings, database: Database, moto: MotoServer, act: Act, *, before: Act | None = None
) -> AsyncIterator[Scene]:
    """The scene after a death at each instant and what a new process made of it, checked against AWS."""
    for instant in count():
        scene = Scene(settings, database, moto.client("ec2"))
        await scene.prepare()
        process, heir = Process(scene, instant), Process(scene, None)
        if before is not None:
            await before(scene, heir, None)
        try:
            await act(scene, process, scene.key)
            for _ in range(3):
                await process.turn()
                scene.now += timedelta(seconds=60)
        except Killed:
            scene.now += timedelta(seconds=60)
        first = await act(scene, heir, scene.key)
        await scene.finish(heir)
        assert await act(scene, heir, scene.key) == first
        await scene.assert_aws_is_as_the_tables_say()
        burnt = process.fuse.burnt
        await process.close()
        await heir.close()
        yield scene
        if not burnt:
            # a service without any step would pass as well
            assert instant > 1
            return


async def test_a_death_at_any_instant_of_a_snapshot_leaves_one(
    disks_settings: DisksSettings, disks_database: Database, moto_server: MotoServer
) -> None:
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
