"""Deletes snapshots and volumes in AWS: exactly those whose rows say that they are to be deleted."""

from datetime import timedelta

from services.disks.adapters.ec2 import CALL_SECONDS
from services.disks.context import Context
from services.disks.domain.operation import Work
from services.disks.domain.snapshot import Snapshot, SnapshotState
from services.disks.operations.prune import finish_prune, record_removed
from services.disks.operations.purge import complete_purge
from services.disks.operations.read import snapshots_of
from shared.leased_worker import Budget

_AT_ONCE = timedelta(0)


async def prune_snapshots(context: Context, work: Work, budget: Budget) -> timedelta | None:
    """One pass: delete the snapshots that need not be kept, as many as the budget allows."""
    for snapshot in await snapshots_of(context.database, work.disk_id, SnapshotState.DELETING):
        if budget.left_seconds < CALL_SECONDS:
            return _AT_ONCE
        if not await _remove(context, work, budget, snapshot):
            return None
    done = await finish_prune(context.database, work=work, now=context.clock())
    return None if done else _AT_ONCE


async def purge_disk(context: Context, work: Work, budget: Budget) -> timedelta | None:
    """One pass: delete the snapshots, then the volume; while it is there, the disk is not gone."""
    for snapshot in await snapshots_of(context.database, work.disk_id, SnapshotState.DELETING):
        if budget.left_seconds < CALL_SECONDS:
            return _AT_ONCE
        if not await _remove(context, work, budget, snapshot):
            return None
    if work.volume_id is not None:
        if budget.left_seconds < CALL_SECONDS:
            return _AT_ONCE
        async with budget.call(CALL_SECONDS):
            await context.ec2.delete_volume(work.volume_id)
    await complete_purge(context, work=work, now=context.clock())
    return None


async def _remove(context: Context, work: Work, budget: Budget, snapshot: Snapshot) -> bool:
    """False: the lease was lost."""
    if snapshot.snapshot_id is not None:
        async with budget.call(CALL_SECONDS):
            await context.ec2.delete_snapshot(snapshot.snapshot_id)
    return await record_removed(context, work=work, snapshot=snapshot, now=context.clock())
