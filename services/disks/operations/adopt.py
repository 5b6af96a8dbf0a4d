"""Write down what the sweep has found."""

from datetime import datetime

from services.disks import storage
from services.disks.context import Context
from services.disks.domain.aws_objects import TAG_NAME
from services.disks.domain.disk import DiskState
from services.disks.domain.facts import SnapshotCompleted
from services.disks.domain.ledger import Adoption
from services.disks.domain.snapshot import SnapshotState
from services.disks.operations.read import find_disk_by_id, lock_disk
from services.disks.operations.record import record_fact
from services.disks.operations.write_name_tags import want_tags
from shared.audit import record_act
from shared.contracts.audit import AuditObject


async def adopt_snapshot(context: Context, *, adoption: Adoption, now: datetime) -> bool:
    """Give a snapshot of ours its row again.

    Returns:
        False: its disk is not there (any more), or it has a row by now.
    """
    snapshot = adoption.snapshot
    async with context.database.transaction() as tx:
        await tx.execute(storage.disks.LOCK, disk_id=adoption.disk_id)
        disk = await find_disk_by_id(tx, adoption.disk_id)
        if disk is None or disk.state is not DiskState.AVAILABLE:
            return False
        adopted = await tx.execute(
            storage.snapshots.INSERT,
            id=adoption.operation_id,
            disk_id=disk.id,
            snapshot_id=snapshot.snapshot_id,
            job_id=None,
            size_gb=snapshot.size_gb,
            status=SnapshotState.COMPLETED,
            name_tag=snapshot.tags.get(TAG_NAME),
            created_at=snapshot.started_at,
            completed_at=now,
            now=now,
        )
        if not adopted:
            return False
        fact = SnapshotCompleted(
            snapshot_id=adoption.operation_id,
            ebs_snapshot_id=snapshot.snapshot_id,
            size_gb=snapshot.size_gb,
            job_id=None,
        )
        await record_fact(tx, context, disk, fact, now)
        await record_act(tx, [AuditObject("snapshot", snapshot.snapshot_id, disk.name)], now=now)
        if snapshot.tags.get(TAG_NAME) != disk.name:
            await want_tags(tx, disk, now=now)
    return True


async def note_name(context: Context, *, aws_id: str, name: str | None, now: datetime) -> None:
    """AWS shows another Name tag than was last written: write down what it shows, and have it put right."""
    disk_id = await context.database.fetch_value(storage.ledger.DISK_OF, aws_id=aws_id)
    if disk_id is None:
        return
    async with context.database.transaction() as tx:
        disk = await lock_disk(tx, disk_id)
        if disk.volume_id == aws_id:
            await tx.execute(storage.disks.SET_NAME_TAG, disk_id=disk_id, name_tag=name)
        else:
            await tx.execute(storage.snapshots.SET_NAME_TAGS, aws_ids=[aws_id], name_tag=name)
        await want_tags(tx, disk, now=now)
        await record_act(tx, [AuditObject("disk", str(disk.id), disk.name)], now=now)
