"""The end of a deleted disk: when its time is over, its snapshots and its volume go for good."""

from datetime import datetime
from functools import partial
from uuid import UUID, uuid4

from services.disks import storage
from services.disks.context import Context
from services.disks.domain.facts import PurgeDue, VolumeRemoved
from services.disks.domain.operation import Action, NewOperation, Work
from services.disks.operations.lease import complete_work
from services.disks.operations.read import lock_disk
from services.disks.operations.record import record_fact, record_operation
from shared.background import each_in_turn
from shared.database import Database, Transaction
from shared.database.purge import purge

_AT_ONCE = 100


async def begin_purges(context: Context, *, now: datetime) -> int:
    """Record that what was deleted long enough ago is to be purged; how many disks.

    One whose snapshot a disk is just being made from waits for the next time.
    """
    rows = await context.database.fetch_all(storage.disks.DUE_PURGES, now=now, limit=_AT_ONCE)
    begun = 0

    async def begin(disk_id: UUID) -> None:
        nonlocal begun
        async with context.database.transaction() as tx:
            begun += await _begin_purge(tx, context, disk_id, now)

    await each_in_turn(partial(begin, row["id"]) for row in rows)
    return begun


async def complete_purge(context: Context, *, work: Work, now: datetime) -> bool:
    """Snapshots and volume are gone; the row stays for as long as its history does.

    Returns:
        False: the lease was lost; nothing was changed.
    """
    async with context.database.transaction() as tx:
        disk = await lock_disk(tx, work.disk_id)
        if not await complete_work(tx, work=work, now=now):
            return False
        await record_fact(tx, context, disk, VolumeRemoved(), now)
    return True


async def forget_history(database: Database, *, before: datetime) -> bool:
    """Forget what has ended, if nothing happened to it since `before`; True: there is more.

    That is: operations, closed claims, snapshots and disks that never were or are gone.
    """
    return await each_in_turn(partial(purge, database, statement, before=before) for statement in _FORGET)


_FORGET = (
    storage.operations.FORGET,
    storage.claims.FORGET,
    storage.snapshots.FORGET,
    storage.disks.FORGET_FAILED,
    storage.disks.FORGET_PURGED,
)


async def _begin_purge(tx: Transaction, context: Context, disk_id: UUID, now: datetime) -> bool:
    disk = await lock_disk(tx, disk_id)
    fact = PurgeDue(is_source=await tx.fetch_value(storage.disks.IS_SOURCE, disk_id=disk_id))
    if await record_fact(tx, context, disk, fact, now) is None:
        return False
    await tx.execute(storage.snapshots.SET_ALL_DELETING, disk_id=disk_id, now=now)
    await tx.execute(storage.operations.SUPERSEDE_TAGGING, disk_id=disk_id, now=now)
    new = NewOperation(id=uuid4(), disk_id=disk_id, disk_name=disk.name, action=Action.PURGE, at=now)
    await record_operation(tx, new)
    tx.after_commit(context.work.wake)
    return True
