"""Make a disk for a user, mark it for deletion, and bring it back."""

from datetime import datetime, timedelta
from uuid import UUID

from services.disks import storage
from services.disks.domain.disk import Action, Disk, DiskState, NewDisk, Operation, OperationStatus
from services.disks.domain.limits import Limits, Usage, check_limits
from services.disks.domain.refusals import DiskExists, NameTakenSince, check_deletable, check_restorable, check_source
from services.disks.operations.leases import NewOperation, record_operation
from services.disks.operations.queries import find_source, read_disk, read_snapshot
from shared.contracts.disks import DiskDeleted, DiskRestored
from shared.database import Database, Transaction
from shared.encryption import Cipher
from shared.errors import NotFound
from shared.idempotency import IdempotencyKey, Outcome, once
from shared.messaging import Draft, record_event
from shared.messaging.outbox import Wakes


async def create_disk(
    database: Database, reconciler: Wakes, *, new: NewDisk, limits: Limits, key: IdempotencyKey | None,
    cipher: Cipher, from_snapshot: str | None = None, size_given: bool = True,
) -> Outcome[Operation]:  # fmt: skip
    """Record a user's wish for a disk; the reconciler makes the volume.

    Args:
        database: Where the disks are.
        reconciler: Woken to make it.
        new: The disk; what it has of the snapshot is filled in here.
        limits: What the user may have.
        key: Idempotency key, None without.
        cipher: Encrypts the stored answer.
        from_snapshot: Snapshot to begin with, by our id or AWS's; None: the disk begins empty.
        size_given: False: a disk from a snapshot takes its size.

    Raises:
        DiskExists: The user has a disk of that name that is not deleted.
        LimitReached: One more would be too many, or too large.
        NotFound: There is no such snapshot, or it is someone else's.
        SnapshotNotReady: The snapshot is not completed.
        InvalidInput: The disk would be smaller than the snapshot.
    """
    async with database.transaction() as tx:

        async def effect() -> Operation:
            disk = new if from_snapshot is None else await _begun_from(tx, new, from_snapshot, size_given)
            if not await insert_disk(tx, disk, limits):
                raise DiskExists(new.name)
            tx.after_commit(reconciler.wake)
            return _requested(new)

        return await once(tx, effect, key=key, answer_type=Operation, cipher=cipher, now=new.requested_at)


async def insert_disk(tx: Transaction, new: NewDisk, limits: Limits) -> bool:
    """Record the disk and its creation; False when the user has a disk of that name.

    Raises:
        LimitReached: One more would be too many, or too large.
    """
    await tx.execute(storage.disks.LOCK_NAMES, user_id=new.user_id)
    if await tx.fetch_value(storage.disks.NAME_IS_TAKEN, user_id=new.user_id, name=new.name):
        return False
    check_limits(await _usage(tx, new.user_id), new.size_gb, limits)
    await tx.execute(
        storage.disks.INSERT, id=new.disk_id, user_id=new.user_id, username=new.username, name=new.name,
        size_gb=new.size_gb, availability_zone=new.availability_zone, state=DiskState.CREATING, version=0,
        source_snapshot=new.source_snapshot, now=new.requested_at,
    )  # fmt: skip
    creation = NewOperation(
        id=new.operation_id, disk_id=new.disk_id, disk_name=new.name, action=Action.CREATE, at=new.requested_at,
        job_id=new.job_id,
    )  # fmt: skip
    await record_operation(tx, creation)
    return True


async def delete_disk(
    database: Database, relay: Wakes, *, user_id: int, name: str, operation_id: UUID, retention: timedelta,
    key: IdempotencyKey | None, cipher: Cipher, now: datetime,
) -> Outcome[Operation]:  # fmt: skip
    """Mark a disk for deletion: its name is free at once, the disk is purged after `retention`.

    Raises:
        NotFound: There is none, or it is someone else's.
        DiskDeleted: It is marked already.
        Conflict: It is in use, being made, or being backed up.
    """
    async with database.transaction() as tx:

        async def effect() -> Operation:
            disk = await lock_named(tx, user_id=user_id, name=name)
            check_deletable(disk)
            purge_at = now + retention
            version = await tx.fetch_value(
                storage.disks.DELETE, disk_id=disk.id, delete_date=purge_at.date(), purge_at=purge_at, now=now
            )
            event = DiskDeleted(
                disk_id=disk.id, user_id=user_id, disk_name=name, operation_id=operation_id, purge_at=purge_at
            )
            return await _done(tx, relay, Draft(data=event, version=version, occurred_at=now), Action.DELETE)

        return await once(tx, effect, key=key, answer_type=Operation, cipher=cipher, now=now)


async def restore_disk(
    database: Database, relay: Wakes, *, user_id: int, name: str, operation_id: UUID, limits: Limits,
    key: IdempotencyKey | None, cipher: Cipher, now: datetime,
) -> Outcome[Operation]:  # fmt: skip
    """Bring a disk back that is marked for deletion: of several of that name, the one deleted last.

    Raises:
        NotFound: There is none, or it is someone else's.
        DiskNotDeleted: It is not marked for deletion, and no other of that name is.
        NameTakenSince: Another disk has the name now.
        TooLateToRestore: Its time is over.
        LimitReached: One more would be too many, or too large.
    """
    async with database.transaction() as tx:

        async def effect() -> Operation:
            await tx.execute(storage.disks.LOCK_NAMES, user_id=user_id)
            disk = await _lock_deleted(tx, user_id, name)
            check_restorable(disk, now)
            check_limits(await _usage(tx, user_id), disk.size_gb, limits)
            version = await tx.fetch_value(storage.disks.RESTORE, disk_id=disk.id, now=now)
            event = DiskRestored(disk_id=disk.id, user_id=user_id, disk_name=name, operation_id=operation_id)
            return await _done(tx, relay, Draft(data=event, version=version, occurred_at=now), Action.RESTORE)

        return await once(tx, effect, key=key, answer_type=Operation, cipher=cipher, now=now)


async def lock_named(tx: Transaction, *, user_id: int, name: str) -> Disk:
    """The user's disk of that name, locked: the one that is not deleted, else the one deleted last.

    Raises:
        NotFound: There is none, or it is someone else's.
    """
    while True:
        disk_id = await tx.fetch_value(storage.disks.LOCK_NAMED, user_id=user_id, name=name)
        if disk_id is not None:
            return await read_disk(tx, disk_id)
        if await tx.fetch_one(storage.disks.FIND, user_id=user_id, name=name) is None:
            raise NotFound("Disk")
        # what the lock waited for has another name now, while another disk has this one: look again


async def _lock_deleted(tx: Transaction, user_id: int, name: str) -> Disk:
    disk = await lock_named(tx, user_id=user_id, name=name)
    if disk.deleted_at is None and await tx.fetch_value(storage.disks.HAS_DELETED, user_id=user_id, name=name):
        raise NameTakenSince(name)
    return disk


async def _begun_from(tx: Transaction, new: NewDisk, from_snapshot: str, size_given: bool) -> NewDisk:
    await tx.execute(storage.disks.LOCK_NAMES, user_id=new.user_id)
    source = await find_source(tx, user_id=new.user_id, snapshot=from_snapshot)
    await tx.execute(storage.disks.LOCK, disk_id=source.disk_id)
    # read again under the lock of its disk: only now it cannot be marked for deletion any more
    source = await read_snapshot(tx, source.id)
    size_gb = check_source(source, new.size_gb if size_given else None)
    return NewDisk(
        disk_id=new.disk_id, operation_id=new.operation_id, user_id=new.user_id, username=new.username,
        name=new.name, size_gb=size_gb, availability_zone=new.availability_zone, requested_at=new.requested_at,
        source_snapshot=source.id,
    )  # fmt: skip


async def _usage(tx: Transaction, user_id: int) -> Usage:
    row = await tx.fetch_one(storage.disks.USAGE, user_id=user_id)
    assert row is not None  # noqa: S101 - an aggregate has one row
    return Usage(disks=row["disks"], gb=row["gb"])


async def _done(tx: Transaction, relay: Wakes, draft: Draft, action: Action) -> Operation:
    """Record what is done with this very transaction: its event, and the operation by which a user can follow it."""
    data: DiskDeleted | DiskRestored = draft.data  # type: ignore[assignment]
    await record_event(tx, draft, relay)
    new = NewOperation(
        id=data.operation_id, disk_id=data.disk_id, disk_name=data.disk_name, action=action, at=draft.occurred_at,
        ended=True,
    )  # fmt: skip
    await record_operation(tx, new)
    disk = await read_disk(tx, data.disk_id)
    return Operation(
        id=new.id, disk_id=disk.id, disk_name=disk.name, action=action, status=OperationStatus.COMPLETED, error=None,
        created_at=new.at, updated_at=new.at, deleted_at=disk.deleted_at, delete_date=disk.delete_date,
    )  # fmt: skip


def _requested(new: NewDisk) -> Operation:
    return Operation(
        id=new.operation_id, disk_id=new.disk_id, disk_name=new.name, action=Action.CREATE,
        status=OperationStatus.QUEUED, error=None, created_at=new.requested_at, updated_at=new.requested_at,
        deleted_at=None, delete_date=None,
    )  # fmt: skip
