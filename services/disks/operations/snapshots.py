"""Snapshots: wanted by a user or by the end of a job, made, refused, and deleted when they need not be kept."""

from datetime import datetime
from uuid import UUID, uuid4

import msgspec

from services.disks import storage
from services.disks.domain.disk import Action, Disk, Operation, OperationStatus
from services.disks.domain.refusals import check_idle, check_not_deleted
from services.disks.domain.snapshot import Retention, Snapshot, SnapshotState, superfluous
from services.disks.operations.announcements import announce_claim
from services.disks.operations.disks import lock_named
from services.disks.operations.leases import NewOperation, Work, end_work, record_operation, still_held
from services.disks.operations.queries import read_disk, read_snapshot, snapshots_of
from services.disks.operations.tags import want_tags
from shared.contracts.disks import DiskOperationFailed, DiskSnapshotCompleted, DiskSnapshotDeleted, DiskSnapshotStarted
from shared.database import Database, Transaction
from shared.encryption import Cipher
from shared.errors import NotFound
from shared.idempotency import IdempotencyKey, Outcome, once
from shared.messaging import Draft, record_event
from shared.messaging.outbox import Wakes


class SnapshotIntent(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a snapshot that is being taken."""

    snapshot_id: str | None
    """AWS's id; None while none is known."""
    asked_at: datetime | None
    """When AWS was last asked without an answer that says what came of it; None: it was not."""


async def request_snapshot(
    database: Database, relay: Wakes, reconciler: Wakes, *, user_id: int, name: str, operation_id: UUID,
    key: IdempotencyKey | None, cipher: Cipher, now: datetime,
) -> Outcome[Operation]:  # fmt: skip
    """Record a user's wish for a snapshot; the reconciler takes it.

    Raises:
        NotFound: There is no such disk, or it is someone else's.
        DiskDeleted: It is marked for deletion.
        Conflict: It is in use, being made, or being backed up.
    """
    async with database.transaction() as tx:

        async def effect() -> Operation:
            disk = await lock_named(tx, user_id=user_id, name=name)
            check_not_deleted(disk)
            check_idle(disk)
            await want_snapshot(tx, relay, disk, snapshot_id=operation_id, job_id=None, now=now)
            tx.after_commit(reconciler.wake)
            return Operation(
                id=operation_id, disk_id=disk.id, disk_name=name, action=Action.SNAPSHOT,
                status=OperationStatus.QUEUED, error=None, created_at=now, updated_at=now, deleted_at=None,
                delete_date=None,
            )  # fmt: skip

        return await once(tx, effect, key=key, answer_type=Operation, cipher=cipher, now=now)


async def want_snapshot(
    tx: Transaction, relay: Wakes, disk: Disk, *, snapshot_id: UUID, job_id: UUID | None, now: datetime
) -> None:
    """Record that a snapshot is wanted: from here on the disk is being backed up."""
    await tx.execute(
        storage.snapshots.INSERT, id=snapshot_id, disk_id=disk.id, snapshot_id=None, job_id=job_id,
        size_gb=disk.size_gb, status=SnapshotState.PENDING, name_tag=None, created_at=now, completed_at=None, now=now,
    )  # fmt: skip
    new = NewOperation(
        id=snapshot_id, disk_id=disk.id, disk_name=disk.name, action=Action.SNAPSHOT, at=now, job_id=job_id
    )
    await record_operation(tx, new)
    version = await tx.fetch_value(storage.disks.NEXT_VERSION, disk_id=disk.id, now=now)
    event = DiskSnapshotStarted(
        disk_id=disk.id, user_id=disk.user_id, disk_name=disk.name, operation_id=snapshot_id, job_id=job_id
    )
    await record_event(tx, Draft(data=event, version=version, occurred_at=now), relay)


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


async def complete_snapshot(
    database: Database, relay: Wakes, *, work: Work, retention: Retention, now: datetime
) -> bool:
    """The snapshot is complete: a job that waits for the disk is told, and what need not be kept is let go.

    Returns:
        False: the lease was lost; nothing was changed.
    """
    async with database.transaction() as tx:
        await tx.execute(storage.disks.LOCK, disk_id=work.disk_id)
        if not await end_work(tx, work=work, now=now):
            return False
        await tx.execute(storage.snapshots.COMPLETE, id=work.id, now=now)
        snapshot = await read_snapshot(tx, work.id)
        disk = await read_disk(tx, work.disk_id)
        version = await tx.fetch_value(storage.disks.NEXT_VERSION, disk_id=disk.id, now=now)
        event = DiskSnapshotCompleted(
            disk_id=disk.id, user_id=disk.user_id, disk_name=disk.name, operation_id=work.id,
            ebs_snapshot_id=snapshot.snapshot_id or "", size_gb=snapshot.size_gb, job_id=snapshot.job_id,
        )  # fmt: skip
        await record_event(tx, Draft(data=event, version=version, occurred_at=now), relay)
        await announce_claim(tx, relay, disk, now)
        await prune(tx, disk, retention, now)
        if await tx.fetch_one(storage.snapshots.STALE_TAGS, disk_id=disk.id, name=disk.name) is not None:
            await want_tags(tx, disk, now=now)
    return True


async def fail_snapshot(database: Database, relay: Wakes, *, work: Work, error: str, now: datetime) -> bool:
    """There will be no such snapshot: the disk is not being backed up any more, and a job that waits for it is told.

    Returns:
        False: the lease was lost; nothing was changed.
    """
    async with database.transaction() as tx:
        await tx.execute(storage.disks.LOCK, disk_id=work.disk_id)
        if not await end_work(tx, work=work, now=now, status=OperationStatus.FAILED, error=error):
            return False
        await tx.execute(storage.snapshots.FAIL, id=work.id, error=error, now=now)
        version = await tx.fetch_value(storage.disks.NEXT_VERSION, disk_id=work.disk_id, now=now)
        disk = await read_disk(tx, work.disk_id)
        # no job in it: the snapshot's job has ended, and the one that waits can start
        event = DiskOperationFailed(
            disk_id=disk.id, user_id=disk.user_id, disk_name=disk.name, operation_id=work.id, action=Action.SNAPSHOT,
            error=error,
        )  # fmt: skip
        await record_event(tx, Draft(data=event, version=version, occurred_at=now), relay)
        await announce_claim(tx, relay, disk, now)
    return True


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


async def prune_crowded(database: Database, *, retention: Retention, now: datetime) -> int:
    """Let go of snapshots that time has made superfluous; how many."""
    rows = await database.fetch_all(storage.snapshots.CROWDED, newest=retention.newest)
    count = 0
    for row in rows:
        async with database.transaction() as tx:
            await tx.execute(storage.disks.LOCK, disk_id=row["disk_id"])
            count += await prune(tx, await read_disk(tx, row["disk_id"]), retention, now)
    return count


async def record_deleted(database: Database, relay: Wakes, *, work: Work, snapshot: Snapshot, now: datetime) -> bool:
    """AWS has deleted the snapshot.

    Returns:
        False: the lease was lost; nothing was changed.
    """
    async with database.transaction() as tx:
        await tx.execute(storage.disks.LOCK, disk_id=work.disk_id)
        if not await still_held(tx, work):
            return False
        if not await tx.execute(storage.snapshots.SET_DELETED, id=snapshot.id, now=now):
            return True
        version = await tx.fetch_value(storage.disks.NEXT_VERSION, disk_id=work.disk_id, now=now)
        disk = await read_disk(tx, work.disk_id)
        event = DiskSnapshotDeleted(
            disk_id=disk.id, user_id=disk.user_id, disk_name=disk.name, operation_id=snapshot.id,
            ebs_snapshot_id=snapshot.snapshot_id or "",
        )  # fmt: skip
        await record_event(tx, Draft(data=event, version=version, occurred_at=now), relay)
    return True


async def finish_prune(database: Database, *, work: Work, now: datetime) -> bool:
    """End the operation if nothing is left to delete, seen under the lock that the marking takes too."""
    async with database.transaction() as tx:
        await tx.execute(storage.disks.LOCK, disk_id=work.disk_id)
        if await snapshots_of(tx, work.disk_id, SnapshotState.DELETING):
            return False
        return await end_work(tx, work=work, now=now)


async def read_intent(database: Database, snapshot_id: UUID) -> SnapshotIntent:
    """How far the taking of a snapshot has come."""
    row = await database.fetch_one(storage.snapshots.READ, id=snapshot_id)
    if row is None:
        raise NotFound("Snapshot")
    return SnapshotIntent(snapshot_id=row["snapshot_id"], asked_at=row["asked_at"])
