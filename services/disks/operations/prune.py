"""Let go of snapshots that need not be kept."""

from datetime import datetime
from uuid import uuid4

from services.disks import storage
from services.disks.context import Context
from services.disks.domain.disk import Disk
from services.disks.domain.facts import SnapshotRemoved
from services.disks.domain.operation import Action, NewOperation, Work
from services.disks.domain.snapshot import Retention, Snapshot, SnapshotState, superfluous
from services.disks.operations.lease import complete_work, still_held
from services.disks.operations.read import lock_disk, snapshots_of
from services.disks.operations.record import record_fact, record_operation
from shared.database import Database, Transaction


async def prune(tx: Transaction, disk: Disk, retention: Retention, now: datetime) -> int:
    """Let go of the snapshots that need not be kept; how many. The disk is locked.

    One that a disk is just being made from stays until the next time.
    """
    let_go = superfluous(await snapshots_of(tx, disk.id, SnapshotState.COMPLETED), retention, now)
    if not let_go:
        return 0
    count = await tx.execute(storage.snapshots.SET_DELETING, ids=[snapshot.id for snapshot in let_go], now=now)
    if count and not await tx.fetch_value(
        storage.operations.HAS_OPEN, disk_id=disk.id, action=Action.PRUNE, or_action=Action.PURGE
    ):
        new = NewOperation(id=uuid4(), disk_id=disk.id, disk_name=disk.name, action=Action.PRUNE, at=now)
        await record_operation(tx, new)
    return count


async def prune_crowded(context: Context, *, now: datetime) -> int:
    """Let go of snapshots that time has made superfluous; how many."""
    rows = await context.database.fetch_all(storage.snapshots.CROWDED, newest=context.retention.newest)
    count = 0
    for row in rows:
        async with context.database.transaction() as tx:
            count += await prune(tx, await lock_disk(tx, row["disk_id"]), context.retention, now)
    return count


async def record_removed(context: Context, *, work: Work, snapshot: Snapshot, now: datetime) -> bool:
    """AWS has deleted the snapshot.

    Returns:
        False: the lease was lost; nothing was changed.
    """
    async with context.database.transaction() as tx:
        disk = await lock_disk(tx, work.disk_id)
        if not await still_held(tx, work):
            return False
        if await tx.execute(storage.snapshots.SET_DELETED, id=snapshot.id, now=now):
            fact = SnapshotRemoved(snapshot_id=snapshot.id, ebs_snapshot_id=snapshot.snapshot_id or "")
            await record_fact(tx, context, disk, fact, now)
    return True


async def finish_prune(database: Database, *, work: Work, now: datetime) -> bool:
    """End the operation if nothing is left to delete, seen under the lock that the marking takes too."""
    async with database.transaction() as tx:
        await tx.execute(storage.disks.LOCK, disk_id=work.disk_id)
        if await snapshots_of(tx, work.disk_id, SnapshotState.DELETING):
            return False
        return await complete_work(tx, work=work, now=now)
