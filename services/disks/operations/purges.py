"""The end of a deleted disk: when its time is over, its snapshots and its volume go for good."""

from datetime import datetime
from uuid import uuid4

from services.disks import storage
from services.disks.domain.disk import Action
from services.disks.operations.leases import NewOperation, Work, end_work, record_operation
from services.disks.operations.queries import read_disk
from shared.contracts.disks import DiskPurged
from shared.database import Database
from shared.messaging import Draft, record_event
from shared.messaging.outbox import Wakes

_AT_ONCE = 100


async def begin_purges(database: Database, *, now: datetime) -> int:
    """Record that what was deleted long enough ago is to be purged; how many disks.

    One whose snapshot a disk is just being made from waits for the next time.
    """
    rows = await database.fetch_all(storage.disks.DUE_PURGES, now=now, limit=_AT_ONCE)
    begun = 0
    for row in rows:
        async with database.transaction() as tx:
            await tx.execute(storage.disks.LOCK, disk_id=row["id"])
            name = await tx.fetch_value(storage.disks.BEGIN_PURGE, disk_id=row["id"], now=now)
            if name is None:
                continue
            await tx.execute(storage.snapshots.SET_ALL_DELETING, disk_id=row["id"], now=now)
            await tx.execute(storage.operations.SUPERSEDE_TAGGING, disk_id=row["id"], now=now)
            purge = NewOperation(id=uuid4(), disk_id=row["id"], disk_name=name, action=Action.PURGE, at=now)
            await record_operation(tx, purge)
            begun += 1
    return begun


async def complete_purge(database: Database, relay: Wakes, *, work: Work, now: datetime) -> bool:
    """Snapshots and volume are gone; the row stays for as long as its history does.

    Returns:
        False: the lease was lost; nothing was changed.
    """
    async with database.transaction() as tx:
        await tx.execute(storage.disks.LOCK, disk_id=work.disk_id)
        if not await end_work(tx, work=work, now=now):
            return False
        version = await tx.fetch_value(storage.disks.SET_PURGED, disk_id=work.disk_id, now=now)
        disk = await read_disk(tx, work.disk_id)
        event = DiskPurged(disk_id=disk.id, user_id=disk.user_id, disk_name=disk.name, volume_id=disk.volume_id or "")
        await record_event(tx, Draft(data=event, version=version, occurred_at=now), relay)
    return True


async def forget_history(database: Database, *, before: datetime) -> None:
    """Forget what has ended, if nothing happened to it since `before`.

    That is: operations, closed claims, snapshots and disks that never were or are gone.
    """
    await database.execute(storage.operations.FORGET, before=before)
    await database.execute(storage.claims.FORGET, before=before)
    await database.execute(storage.snapshots.FORGET, before=before)
    await database.execute(storage.disks.FORGET_FAILED, before=before)
    await database.execute(storage.disks.FORGET_PURGED, before=before)
