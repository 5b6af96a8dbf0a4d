"""Rename a disk, and what is left to do after it: the Name tags in AWS, which are for people.

The table is right at once; tags follow. What their workers write down is guarded by their lease, and a newer rename
takes over what the older ones had left to do.
"""

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID, uuid4

import msgspec

from services.disks import storage
from services.disks.domain.disk import Action, Disk, DiskState
from services.disks.operations.leases import NewOperation, Work, end_work, record_operation, still_held
from services.disks.operations.queries import read_disk
from shared.database import Database, Transaction


class StaleTags(msgspec.Struct, frozen=True, kw_only=True):
    """What in AWS has not the disk's name yet."""

    name: str
    """That it should have."""
    aws_ids: list[str]
    """The volume, if it is one of them, comes first."""


async def want_tags(tx: Transaction, disk: Disk, *, now: datetime) -> None:
    """Have the Name tags of a disk brought after its name; nothing new when that is wanted already."""
    if not await tx.fetch_value(
        storage.operations.HAS_OPEN, disk_id=disk.id, action=Action.RENAME, or_action=Action.TAG
    ):
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


def _volume_is_stale(disk: Disk) -> bool:
    # one that is being purged takes no tag any more, and its work would never end
    return disk.state is DiskState.AVAILABLE and disk.name_tag != disk.name
