"""Take a snapshot: as a user wants it or the end of a job brings it, and as AWS makes it or refuses to."""

from datetime import datetime
from uuid import UUID

from services.disks import storage
from services.disks.context import Context
from services.disks.domain.disk import Disk
from services.disks.domain.facts import SnapshotCompleted, SnapshotDue, SnapshotRefused, SnapshotRequested
from services.disks.domain.operation import Action, NewOperation, Operation, Work
from services.disks.domain.snapshot import SnapshotState
from services.disks.operations.announce import announce_claim
from services.disks.operations.lease import complete_work, fail_work, still_held
from services.disks.operations.prune import prune
from services.disks.operations.read import lock_named, read_disk, read_snapshot
from services.disks.operations.record import record_fact, record_operation
from services.disks.operations.write_name_tags import want_tags
from shared.database import Database, Transaction
from shared.idempotency import IdempotencyKey, Outcome, idempotent


async def request_snapshot(
    context: Context, *, user_id: int, name: str, operation_id: UUID, key: IdempotencyKey | None, now: datetime
) -> Outcome[Operation]:
    """Record a snapshot that a user wants; a worker takes it.

    Raises:
        NotFound: There is no such disk, or it is someone else's.
        DiskDeleted: It is marked for deletion.
        Conflict: It is in use, being made, or being backed up.
    """

    async def effect(tx: Transaction) -> Operation:
        disk = await lock_named(tx, user_id=user_id, name=name)
        new = await _want_snapshot(tx, context, disk, SnapshotRequested(snapshot_id=operation_id), now)
        tx.after_commit(context.work.wake)
        return new.answer()

    return await idempotent(context, effect, key=key, answer_type=Operation, now=now, audit=Operation.audited)


async def snapshot_after_job(
    tx: Transaction, context: Context, disk: Disk, *, snapshot_id: UUID, job_id: UUID, now: datetime
) -> None:
    """Record that a snapshot is wanted because a job has used the disk. The disk is locked."""
    await _want_snapshot(tx, context, disk, SnapshotDue(snapshot_id=snapshot_id, job_id=job_id), now)


async def note_asked(database: Database, *, work: Work, at: datetime | None) -> bool:
    """AWS is about to be asked for the snapshot, or (None) has said that it did not make it.

    Returns:
        False: the lease was lost; AWS must not be asked.
    """
    async with database.transaction() as tx:
        if not await still_held(tx, work):
            return False
        await tx.execute(storage.snapshots.ASKED, id=work.id, asked_at=at)
    return True


async def bind_snapshot(database: Database, *, work: Work, aws_id: str, name_tag: str, now: datetime) -> bool:
    """AWS makes the snapshot under this id.

    Returns:
        False: the lease was lost; nothing was changed.
    """
    async with database.transaction() as tx:
        if not await still_held(tx, work):
            return False
        await tx.execute(storage.snapshots.BIND, id=work.id, aws_id=aws_id, name_tag=name_tag, now=now)
    return True


async def complete_snapshot(context: Context, *, work: Work, now: datetime) -> bool:
    """The snapshot is complete: the disk is announced to a job that waits for it, and what need not be kept is let go.

    Returns:
        False: the lease was lost; nothing was changed.
    """
    async with context.database.transaction() as tx:
        await tx.execute(storage.disks.LOCK, disk_id=work.disk_id)
        if not await complete_work(tx, work=work, now=now):
            return False
        await tx.execute(storage.snapshots.COMPLETE, id=work.id, now=now)
        snapshot = await read_snapshot(tx, work.id)
        # read after the snapshot's own end: the disk is no longer being backed up
        disk = await read_disk(tx, work.disk_id)
        fact = SnapshotCompleted(
            snapshot_id=work.id,
            ebs_snapshot_id=snapshot.snapshot_id or "",
            size_gb=snapshot.size_gb,
            job_id=snapshot.job_id,
        )
        disk = await record_fact(tx, context, disk, fact, now) or disk
        disk = await announce_claim(tx, context, disk, now)
        await prune(tx, disk, context.retention, now)
        if await tx.fetch_one(storage.snapshots.STALE_TAGS, disk_id=disk.id, name=disk.name) is not None:
            await want_tags(tx, disk, now=now)
    return True


async def fail_snapshot(context: Context, *, work: Work, error: str, now: datetime) -> bool:
    """There will be no such snapshot: the disk is not being backed up any more, and is announced to a job that waits.

    Returns:
        False: the lease was lost; nothing was changed.
    """
    async with context.database.transaction() as tx:
        await tx.execute(storage.disks.LOCK, disk_id=work.disk_id)
        if not await fail_work(tx, work=work, error=error, now=now):
            return False
        await tx.execute(storage.snapshots.FAIL, id=work.id, error=error, now=now)
        # read after the snapshot's own end: the disk is no longer being backed up
        disk = await read_disk(tx, work.disk_id)
        disk = await record_fact(tx, context, disk, SnapshotRefused(snapshot_id=work.id, error=error), now) or disk
        await announce_claim(tx, context, disk, now)
    return True


async def _want_snapshot(
    tx: Transaction, context: Context, disk: Disk, fact: SnapshotRequested | SnapshotDue, now: datetime
) -> NewOperation:
    job_id = fact.job_id if isinstance(fact, SnapshotDue) else None
    new = NewOperation(
        id=fact.snapshot_id, disk_id=disk.id, disk_name=disk.name, action=Action.SNAPSHOT, at=now, job_id=job_id
    )
    if await record_fact(tx, context, disk, fact, now) is None:
        return new
    await tx.execute(
        storage.snapshots.INSERT,
        id=new.id,
        disk_id=disk.id,
        snapshot_id=None,
        job_id=job_id,
        size_gb=disk.size_gb,
        status=SnapshotState.PENDING,
        name_tag=None,
        created_at=now,
        completed_at=None,
        now=now,
    )
    await record_operation(tx, new)
    return new
