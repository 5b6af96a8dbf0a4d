"""Deletes snapshots and volumes in AWS: exactly those whose rows say that they are to be deleted."""

from collections.abc import Callable
from datetime import datetime, timedelta

from services.disks.adapters.ec2 import Ec2
from services.disks.domain.snapshot import Snapshot, SnapshotState
from services.disks.operations.leases import Work
from services.disks.operations.purges import complete_purge
from services.disks.operations.queries import snapshots_of
from services.disks.operations.snapshots import finish_prune, record_deleted
from shared.database import Database
from shared.messaging.outbox import Wakes

_AT_ONCE = timedelta(0)


class Removal:
    def __init__(self, *, database: Database, relay: Wakes, ec2: Ec2, clock: Callable[[], datetime]) -> None:
        self._database = database
        self._relay = relay
        self._ec2 = ec2
        self._clock = clock

    async def prune(self, work: Work) -> timedelta | None:
        """Delete the snapshots that need not be kept."""
        if not await self._delete_snapshots(work):
            return None
        done = await finish_prune(self._database, work=work, now=self._clock())
        return None if done else _AT_ONCE

    async def purge(self, work: Work) -> timedelta | None:
        """Delete the snapshots, then the volume; while it is there, the disk is not gone."""
        if not await self._delete_snapshots(work):
            return None
        if work.volume_id is not None:
            await self._ec2.delete_volume(work.volume_id)
        await complete_purge(self._database, self._relay, work=work, now=self._clock())
        return None

    async def _delete_snapshots(self, work: Work) -> bool:
        """False: the lease was lost."""
        for snapshot in await snapshots_of(self._database, work.disk_id, SnapshotState.DELETING):
            if not await self._delete(work, snapshot):
                return False
        return True

    async def _delete(self, work: Work, snapshot: Snapshot) -> bool:
        if snapshot.snapshot_id is not None:
            await self._ec2.delete_snapshot(snapshot.snapshot_id)
        return await record_deleted(self._database, self._relay, work=work, snapshot=snapshot, now=self._clock())
