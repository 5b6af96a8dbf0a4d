"""One disk in AWS and what may be done with it, step by step."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import sqlalchemy as sa

from services.disks.app import PASSES
from services.disks.context import Context
from services.disks.domain.aws_objects import TAG_DISK, TAG_NAME
from services.disks.operations.create import create_disk
from services.disks.operations.delete import delete_disk
from services.disks.operations.purge import begin_purges
from services.disks.operations.read import list_disks
from services.disks.operations.rename import rename_disk
from services.disks.operations.snapshot import request_snapshot
from services.disks.settings import DisksSettings
from services.disks.storage.tables import disks, operations, snapshots
from services.disks.workers.open_operations import operations_worker
from shared.database import Database, Statement
from shared.idempotency import IdempotencyKey
from tests.support.disk_process import WorkProcess
from tests.support.disks import disks_context, new_disk, new_user_id, snapshots_of_user, volumes_of

RETENTION_TIME = timedelta(days=30)
_DISK_ID = sa.bindparam("disk_id", type_=sa.Uuid)
_UNFINISHED = Statement(
    sa.select(sa.func.count()).where(operations.c.disk_id == _DISK_ID, operations.c.status != "completed")
)
_KEPT = Statement(
    sa.select(snapshots.c.snapshot_id)
    .join(disks, disks.c.id == snapshots.c.disk_id)
    .where(disks.c.user_id == sa.bindparam("user_id"), snapshots.c.status == "completed")
)
_ACTIONS = Statement(
    sa.select(operations.c.action).where(operations.c.disk_id == _DISK_ID).order_by(operations.c.created_at)
)


class Scene:
    """One disk with one snapshot, and a clock that only the scene moves.

    Args:
        settings: The service's.
        database: Its database.
        cloud: AWS.
    """

    def __init__(self, settings: DisksSettings, database: Database, cloud: Any) -> None:
        self.settings = settings
        self.database = database
        self.cloud = cloud
        self.now = datetime.now(UTC)
        self.user_id = new_user_id()
        self.disk_id = uuid4()
        self.key = IdempotencyKey(self.user_id, "the request", b"")

    def clock(self) -> datetime:
        """The time."""
        return self.now

    @property
    def context(self) -> Context:
        """What operations work with that no process dies of."""
        return disks_context(self.settings, self.database, clock=self.clock)

    async def turn(self, process: WorkProcess) -> None:
        """What is due is worked once."""
        await operations_worker(process.context(self.clock), PASSES).work_due()

    async def prepare(self) -> None:
        """Make the disk and its snapshot."""
        new = new_disk(self.user_id, "old", at=self.now)
        self.disk_id = new.disk_id
        await create_disk(self.context, new=new, key=None)
        process = WorkProcess(self.settings, None)
        await self.finish(process)
        await self.snapshot(process, key=None)
        await self.finish(process)
        await process.close()

    async def finish(self, process: WorkProcess) -> None:
        """Let all work end, a minute passing before each turn."""
        for _ in range(20):
            self.now += timedelta(seconds=60)
            await self.turn(process)
            if not await self.database.fetch_value(_UNFINISHED, disk_id=self.disk_id):
                return
        raise AssertionError("the work does not end")

    async def create(self, process: WorkProcess, key: IdempotencyKey | None) -> UUID:
        """Ask for another disk, which is the scene's from then on; the operation."""
        new = new_disk(self.user_id, "another", at=self.now)
        outcome = await create_disk(process.context(self.clock), new=new, key=key)
        self.disk_id = outcome.answer.disk_id
        return outcome.answer.id

    async def snapshot(self, process: WorkProcess, key: IdempotencyKey | None) -> UUID:
        """Ask for another; the operation."""
        outcome = await request_snapshot(
            process.context(self.clock), user_id=self.user_id, name="old", operation_id=uuid4(), key=key, now=self.now
        )
        return outcome.answer.id

    async def delete(self, process: WorkProcess, key: IdempotencyKey | None) -> UUID:
        """Mark the disk for deletion; the operation."""
        outcome = await delete_disk(
            process.context(self.clock), user_id=self.user_id, name="old", operation_id=uuid4(), key=key, now=self.now
        )
        return outcome.answer.id

    async def rename(self, process: WorkProcess, key: IdempotencyKey | None) -> UUID:
        """Name the disk `new`; the operation."""
        outcome = await rename_disk(
            process.context(self.clock), user_id=self.user_id, name="old", new_name="new", key=key
        )
        return outcome.answer.renamed.operation_id

    async def purge(self, process: WorkProcess, key: IdempotencyKey | None) -> None:
        """Have the deleted disk's time be over."""
        del key
        self.now += RETENTION_TIME
        await begin_purges(process.context(self.clock), now=self.now)

    async def actions(self) -> list[str]:
        """What was done, or is to be, in its order."""
        return [str(row["action"]) for row in await self.database.fetch_all(_ACTIONS, disk_id=self.disk_id)]

    async def assert_aws_is_as_the_tables_say(self) -> None:
        """No volume or snapshot of the user but those of their disks, each once, with its disk's name."""
        page = await list_disks(self.database, user_id=self.user_id, include_deleted=True, limit=500, offset=0)
        names = {str(disk.id): disk.name for disk in page.disks}
        rows = await self.database.fetch_all(_KEPT, user_id=self.user_id)
        volumes = await volumes_of(self.cloud, self.user_id)
        taken = await snapshots_of_user(self.cloud, self.user_id)
        assert sorted(found["VolumeId"] for found in volumes) == sorted(str(disk.volume_id) for disk in page.disks)
        assert sorted(found["SnapshotId"] for found in taken) == sorted(row["snapshot_id"] for row in rows)
        for found in volumes + taken:
            tags = {tag["Key"]: tag["Value"] for tag in found["Tags"]}
            assert tags[TAG_NAME] == names[tags[TAG_DISK]]
