"""Make a disk: as a user or a job wants it, and as AWS makes its volume or refuses to."""

from datetime import datetime

from msgspec.structs import replace

from services.disks import storage
from services.disks.context import Context
from services.disks.domain.disk import DiskState, NewDisk
from services.disks.domain.facts import VolumeMade, VolumeRefused
from services.disks.domain.limits import Usage, check_limits
from services.disks.domain.operation import Action, NewOperation, Operation, Work
from services.disks.domain.refusals import DiskExists, check_source
from services.disks.operations.announce import announce_claim
from services.disks.operations.lease import complete_work, fail_work
from services.disks.operations.read import find_source, lock_disk, read_snapshot
from services.disks.operations.record import record_fact, record_operation
from services.disks.operations.write_name_tags import want_tags
from shared.database import Transaction, to_struct
from shared.idempotency import IdempotencyKey, Outcome, idempotent


async def create_disk(
    context: Context,
    *,
    new: NewDisk,
    key: IdempotencyKey | None,
    from_snapshot: str | None = None,
    size_given: bool = True,
) -> Outcome[Operation]:
    """Record a disk that a user wants; a worker makes the volume.

    Args:
        context: Of the service.
        new: The disk; what it has of the snapshot is filled in here.
        key: Idempotency key, None without.
        from_snapshot: Snapshot to begin with, by our id or AWS's; None: the disk begins empty.
        size_given: False: a disk from a snapshot takes its size.

    Raises:
        DiskExists: The user has a disk of that name that is not deleted.
        LimitReached: One more would be too many, or too large.
        NotFound: There is no such snapshot, or it is someone else's.
        SnapshotNotReady: The snapshot is not completed.
        InvalidInput: The disk would be smaller than the snapshot.
    """

    async def effect(tx: Transaction) -> Operation:
        disk = new if from_snapshot is None else await _begun_from(tx, new, from_snapshot, size_given)
        if not await insert_disk(tx, context, disk):
            raise DiskExists(new.name)
        return _creation(disk).answer()

    return await idempotent(
        context, effect, key=key, answer_type=Operation, now=new.requested_at, audit=Operation.audited
    )


async def insert_disk(tx: Transaction, context: Context, new: NewDisk) -> bool:
    """Record the disk and its creation; False when the user has a disk of that name.

    Raises:
        LimitReached: One more would be too many, or too large.
    """
    await tx.execute(storage.disks.LOCK_NAMES, user_id=new.user_id)
    if await tx.fetch_value(storage.disks.NAME_IS_TAKEN, user_id=new.user_id, name=new.name):
        return False
    check_limits(await read_usage(tx, new.user_id), new.size_gb, context.limits)
    await tx.execute(
        storage.disks.INSERT,
        id=new.disk_id,
        user_id=new.user_id,
        username=new.username,
        name=new.name,
        size_gb=new.size_gb,
        availability_zone=new.availability_zone,
        state=DiskState.CREATING,
        version=0,
        source_snapshot=new.source_snapshot,
        now=new.requested_at,
    )
    await record_operation(tx, _creation(new))
    tx.after_commit(context.work.wake)
    return True


async def read_usage(tx: Transaction, user_id: int) -> Usage:
    """What the user has in disks; under the lock of the names it stays so."""
    row = await tx.fetch_one(storage.disks.USAGE, user_id=user_id)
    assert row is not None  # noqa: S101 - an aggregate has one row
    return to_struct(row, Usage)


async def complete_creation(
    context: Context, *, work: Work, volume_id: str, availability_zone: str, now: datetime
) -> bool:
    """The volume is there: the disk can be used, which is announced to a job that waits for it.

    Returns:
        False: the lease was lost or the disk is no longer being made; nothing was changed.
    """
    fact = VolumeMade(
        volume_id=volume_id,
        availability_zone=availability_zone,
        name_tag=work.disk_name,
        operation_id=work.operation_id,
    )
    async with context.database.transaction() as tx:
        disk = await lock_disk(tx, work.disk_id)
        if not await complete_work(tx, work=work, now=now):
            return False
        made = await record_fact(tx, context, disk, fact, now)
        if made is None:
            return False
        await announce_claim(tx, context, made, now)
        if made.name != work.disk_name:
            await want_tags(tx, made, now=now)
    return True


async def fail_creation(context: Context, *, work: Work, error: str, now: datetime) -> bool:
    """AWS will never make the volume: the disk never was, its name is free, and a job that waits for it fails.

    Returns:
        False: the lease was lost; nothing was changed.
    """
    async with context.database.transaction() as tx:
        disk = await lock_disk(tx, work.disk_id)
        if not await fail_work(tx, work=work, error=error, now=now):
            return False
        job_id = await tx.fetch_value(storage.claims.DROP_OF_DISK, disk_id=disk.id, now=now)
        fact = VolumeRefused(error=error, operation_id=work.operation_id, job_id=job_id)
        await record_fact(tx, context, disk, fact, now)
    return True


async def _begun_from(tx: Transaction, new: NewDisk, from_snapshot: str, size_given: bool) -> NewDisk:
    await tx.execute(storage.disks.LOCK_NAMES, user_id=new.user_id)
    source = await find_source(tx, user_id=new.user_id, snapshot=from_snapshot)
    await tx.execute(storage.disks.LOCK, disk_id=source.disk_id)
    # read again under the lock of its disk: only now it cannot be marked for deletion any more
    source = await read_snapshot(tx, source.id)
    size_gb = check_source(source, new.size_gb if size_given else None)
    return replace(new, size_gb=size_gb, source_snapshot=source.id)


def _creation(new: NewDisk) -> NewOperation:
    return NewOperation(
        id=new.operation_id,
        disk_id=new.disk_id,
        disk_name=new.name,
        action=Action.CREATE,
        at=new.requested_at,
        job_id=new.job_id,
    )
