"""Mark a disk for deletion, and bring it back."""

from datetime import datetime, timedelta
from uuid import UUID

from services.disks import storage
from services.disks.context import Context
from services.disks.domain.disk import Disk
from services.disks.domain.facts import DeletionRequested, RestoreRequested
from services.disks.domain.limits import check_limits
from services.disks.domain.operation import Action, NewOperation, Operation
from services.disks.domain.refusals import NameTakenSince
from services.disks.operations.create import read_usage
from services.disks.operations.read import lock_named
from services.disks.operations.record import record_operation, record_request
from shared.database import Transaction
from shared.idempotency import IdempotencyKey, Outcome, idempotent


async def delete_disk(
    context: Context, *, user_id: int, name: str, operation_id: UUID, key: IdempotencyKey | None, now: datetime
) -> Outcome[Operation]:
    """Mark a disk for deletion: its name is free at once, and it is purged when its retention is over.

    Raises:
        NotFound: There is none, or it is someone else's.
        DiskDeleted: It is marked already.
        Conflict: It is in use, being made, or being backed up.
    """
    purge_at = now + timedelta(days=context.settings.disk_retention_days)

    async def effect(tx: Transaction) -> Operation:
        disk = await lock_named(tx, user_id=user_id, name=name)
        fact = DeletionRequested(operation_id=operation_id, purge_at=purge_at)
        deleted = await record_request(tx, context, disk, fact, now)
        return await _record_done(tx, deleted, operation_id, Action.DELETE, now)

    return await idempotent(context, effect, key=key, answer_type=Operation, now=now, audit=Operation.audited)


async def restore_disk(
    context: Context, *, user_id: int, name: str, operation_id: UUID, key: IdempotencyKey | None, now: datetime
) -> Outcome[Operation]:
    """Bring a disk back that is marked for deletion: of several of that name, the one deleted last.

    Raises:
        NotFound: There is none, or it is someone else's.
        DiskNotDeleted: It is not marked for deletion, and no other of that name is.
        NameTakenSince: Another disk has the name now.
        TooLateToRestore: Its time is over.
        LimitReached: One more would be too many, or too large.
    """

    async def effect(tx: Transaction) -> Operation:
        await tx.execute(storage.disks.LOCK_NAMES, user_id=user_id)
        usage = await read_usage(tx, user_id)
        disk = await _lock_deleted(tx, user_id, name)
        restored = await record_request(tx, context, disk, RestoreRequested(operation_id=operation_id), now)
        check_limits(usage, disk.size_gb, context.limits)
        return await _record_done(tx, restored, operation_id, Action.RESTORE, now)

    return await idempotent(context, effect, key=key, answer_type=Operation, now=now, audit=Operation.audited)


async def _lock_deleted(tx: Transaction, user_id: int, name: str) -> Disk:
    disk = await lock_named(tx, user_id=user_id, name=name)
    if disk.deleted_at is None and await tx.fetch_value(storage.disks.HAS_DELETED, user_id=user_id, name=name):
        raise NameTakenSince(name)
    return disk


async def _record_done(tx: Transaction, disk: Disk, operation_id: UUID, action: Action, now: datetime) -> Operation:
    """Record what is done with this very transaction as an operation, by which a user can follow it."""
    new = NewOperation(id=operation_id, disk_id=disk.id, disk_name=disk.name, action=action, at=now, ended=True)
    await record_operation(tx, new)
    return new.answer(deleted_at=disk.deleted_at, delete_date=disk.delete_date)
