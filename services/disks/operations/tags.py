"""Rename a disk, and what is left to do after it: the Name tags in AWS, which are for people.

The table is right at once; tags follow. What their workers write down is guarded by their lease, and a newer rename
takes over what the older ones had left to do.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from uuid import UUID, uuid4

import msgspec

from services.disks import storage
from services.disks.domain.changes import DiskExists, check_not_deleted, check_not_in_use
from services.disks.domain.disk import Action, Disk, DiskState, OperationStatus
from services.disks.operations.disks import lock_named
from services.disks.operations.work import NewOperation, Work, end_work, lease_one, record_operation, still_held
from services.disks.queries import read_disk
from shared.contracts.disks import DiskRenamed
from shared.database import Database, Transaction
from shared.encryption import Cipher
from shared.idempotency import IdempotencyKey, Outcome, once
from shared.messaging import Draft, record_event
from shared.messaging.outbox import Wakes


class Renamed(msgspec.Struct, frozen=True, kw_only=True):
    """A disk has its new name; `operation_id` brings the tags after it."""

    operation_id: UUID
    old_name: str
    new_name: str


class TagReport(msgspec.Struct, frozen=True, kw_only=True):
    """How far the tags of a disk's snapshots had come when the request was answered."""

    updated: int
    total: int
    errors: list[str]
    """What AWS did not take, for a person; the background tries it again."""


class RenameState(msgspec.Struct, frozen=True, kw_only=True):
    """Where the operation of a rename stands."""

    disk_id: UUID
    status: OperationStatus
    created_at: datetime
    report: TagReport | None
    """What was answered; None while that is not known."""


class StaleTags(msgspec.Struct, frozen=True, kw_only=True):
    """What in AWS has not the disk's name yet."""

    name: str
    """That it should have."""
    aws_ids: list[str]
    """The volume, if it is one of them, comes first."""


async def rename_disk(
    database: Database, relay: Wakes, *, user_id: int, name: str, new_name: str, operation_id: UUID,
    key: IdempotencyKey | None, cipher: Cipher, now: datetime, lease_for: timedelta,
) -> tuple[Outcome[Renamed], Work | None]:  # fmt: skip
    """Give a disk another name; whoever works the operation brings the tags after it.

    Returns:
        What was done, and the caller's lease on the operation; no lease for a repetition, nor while an older rename's
        worker may have a call under way.

    Raises:
        NotFound: There is none, or it is someone else's.
        DiskDeleted: It is marked for deletion.
        DiskInUse: A job has it.
        DiskExists: The user has a disk of the new name.
    """
    async with database.transaction() as tx:

        async def effect() -> Renamed:
            await tx.execute(storage.disks.LOCK_NAMES, user_id=user_id)
            disk = await lock_named(tx, user_id=user_id, name=name)
            check_not_deleted(disk)
            check_not_in_use(disk)
            if await tx.fetch_value(storage.disks.NAME_IS_TAKEN, user_id=user_id, name=new_name):
                raise DiskExists(new_name)
            version = await tx.fetch_value(storage.disks.RENAME, disk_id=disk.id, new_name=new_name, now=now)
            event = DiskRenamed(
                disk_id=disk.id, user_id=user_id, disk_name=new_name, operation_id=operation_id, old_name=name
            )
            await record_event(tx, Draft(data=event, version=version, occurred_at=now), relay)
            rename = NewOperation(
                id=operation_id, disk_id=disk.id, disk_name=name, new_name=new_name, action=Action.RENAME, at=now,
                not_before=await _take_over(tx, disk.id, now),
            )  # fmt: skip
            await record_operation(tx, rename)
            return Renamed(operation_id=operation_id, old_name=name, new_name=new_name)

        outcome = await once(tx, effect, key=key, answer_type=Renamed, cipher=cipher, now=now)
        if outcome.replayed:
            return outcome, None
        return outcome, await lease_one(tx, operation_id=operation_id, now=now, lease_for=lease_for)


async def want_tags(tx: Transaction, disk: Disk, *, now: datetime) -> None:
    """Have the Name tags of a disk brought after its name; nothing new when that is wanted already."""
    if not await tx.fetch_value(storage.work.HAS_OPEN, disk_id=disk.id, action=Action.RENAME, or_action=Action.TAG):
        new = NewOperation(id=uuid4(), disk_id=disk.id, disk_name=disk.name, action=Action.TAG, at=now)
        await record_operation(tx, new)


async def stale_tags(database: Database, *, disk_id: UUID) -> StaleTags:
    """What has not the disk's name yet; nothing when the disk is being purged."""
    disk = await read_disk(database, disk_id)
    rows = await database.fetch_all(storage.snapshots.STALE_TAGS, disk_id=disk_id, name=disk.name)
    aws_ids = [row["snapshot_id"] for row in rows]
    if disk.volume_id is not None and _volume_is_stale(disk):
        aws_ids.insert(0, disk.volume_id)
    return StaleTags(name=disk.name, aws_ids=aws_ids)


async def record_tagged(database: Database, *, work: Work, name: str, aws_ids: Sequence[str], volume: bool) -> bool:
    """These have the tag now.

    Args:
        database: Where the rows are.
        work: Whose lease must still hold.
        name: That they were given.
        aws_ids: Of snapshots and the volume.
        volume: Whether the volume is among them.

    Returns:
        False: the lease was lost, nothing was changed.
    """
    async with database.transaction() as tx:
        if not await still_held(tx, work):
            return False
        await tx.execute(storage.snapshots.SET_NAME_TAGS, aws_ids=list(aws_ids), name_tag=name)
        if volume:
            await tx.execute(storage.disks.SET_NAME_TAG, disk_id=work.disk_id, name_tag=name)
    return True


async def finish_tags(database: Database, *, work: Work, now: datetime) -> bool:
    """End the operation if every tag holds.

    Returns:
        False: something is stale, by a rename in between perhaps, or the lease was lost.
    """
    async with database.transaction() as tx:
        await tx.execute(storage.disks.LOCK, disk_id=work.disk_id)
        disk = await read_disk(tx, work.disk_id)
        stale = await tx.fetch_one(storage.snapshots.STALE_TAGS, disk_id=disk.id, name=disk.name)
        if stale is not None or _volume_is_stale(disk):
            return False
        return await end_work(tx, work=work, now=now)


async def count_tagged(database: Database, *, disk_id: UUID) -> int:
    """How many snapshots of the disk carry a Name tag."""
    count: int = await database.fetch_value(storage.snapshots.COUNT_TAGGED, disk_id=disk_id)
    return count


async def store_report(database: Database, *, operation_id: UUID, report: TagReport) -> None:
    """Keep what a rename was answered, for repetitions of the request."""
    await database.execute(storage.work.REPORT, operation_id=operation_id, report=msgspec.to_builtins(report))


async def find_rename(database: Database, *, operation_id: UUID) -> RenameState | None:
    """Where a rename stands; None when it is forgotten."""
    row = await database.fetch_one(storage.work.READ, operation_id=operation_id)
    return None if row is None else msgspec.convert(
        {name: row[name] for name in RenameState.__struct_fields__}, RenameState
    )  # fmt: skip


def _volume_is_stale(disk: Disk) -> bool:
    # one that is being purged takes no tag any more, and its work would never end
    return disk.state is DiskState.AVAILABLE and disk.name_tag != disk.name


async def _take_over(tx: Transaction, disk_id: UUID, now: datetime) -> datetime:
    """End what older renames had left to do; when their last worker's lease is over."""
    rows = await tx.fetch_all(storage.work.SUPERSEDE_TAGGING, disk_id=disk_id, now=now)
    # a call of theirs may still be under way, and must not write its old name after ours
    until: datetime = max([now, *(row["worked_until"] for row in rows if row["lease"] > 0)])
    return until
