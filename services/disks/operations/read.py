"""Read disks and what belongs to them, some under a lock; nothing is written."""

from uuid import UUID

import msgspec

from services.disks import storage
from services.disks.domain.content import NO_CONTENT, Content
from services.disks.domain.disk import Disk
from services.disks.domain.ledger import LedgerDisk, LedgerSnapshot
from services.disks.domain.operation import Operation
from services.disks.domain.snapshot import Snapshot, SnapshotState
from shared.database import Database, Executor, Row, Transaction, to_struct
from shared.errors import NotFound


class DiskPage(msgspec.Struct, frozen=True):
    disks: list[Disk]
    total: int
    """Of the same moment, all pages together."""


class SnapshotPage(msgspec.Struct, frozen=True):
    snapshots: list[Snapshot]
    total: int
    """Of the same moment, all pages together."""


async def list_disks(database: Database, *, user_id: int, include_deleted: bool, limit: int, offset: int) -> DiskPage:
    """A user's own disks, newest first.

    Args:
        database: Where from.
        user_id: Owner.
        include_deleted: Also those that are deleted and not yet purged.
        limit: Disks on the page.
        offset: Disks before the page.
    """
    rows = await database.fetch_all(
        storage.disks.LIST, user_id=user_id, include_deleted=include_deleted, limit=limit, offset=offset
    )
    return DiskPage([to_struct(row, Disk) for row in rows if row["id"] is not None], rows[0]["total"])


async def get_disk(executor: Executor, *, user_id: int, name: str) -> Disk:
    """A user's disk of that name: the one that is not deleted, else the one deleted last.

    Raises:
        NotFound: There is none, or it is someone else's.
    """
    row = await executor.fetch_one(storage.disks.FIND, user_id=user_id, name=name)
    if row is None:
        raise NotFound("Disk")
    return to_struct(row, Disk)


async def list_snapshots(database: Database, *, user_id: int, name: str, limit: int, offset: int) -> SnapshotPage:
    """A disk's snapshots, newest first; those that are being deleted are no longer among them.

    Raises:
        NotFound: There is no such disk, or it is someone else's.
    """
    disk = await get_disk(database, user_id=user_id, name=name)
    rows = await database.fetch_all(storage.snapshots.LIST, disk_id=disk.id, limit=limit, offset=offset)
    return SnapshotPage([to_struct(row, Snapshot) for row in rows if row["id"] is not None], rows[0]["total"])


async def get_content(database: Database, *, user_id: int, name: str) -> tuple[Disk, Content]:
    """A disk, and what was on it when its last job ended.

    Raises:
        NotFound: There is no such disk, or it is someone else's.
    """
    disk = await get_disk(database, user_id=user_id, name=name)
    row = await database.fetch_one(storage.contents.READ, disk_id=disk.id)
    return disk, NO_CONTENT if row is None else _content_of(row)


async def get_operation(database: Database, *, user_id: int, name: str, operation_id: str) -> Operation:
    """An operation of a user's disk, by any name that the disk has or had.

    Args:
        database: Where from.
        user_id: Owner of the disk.
        name: Of the disk.
        operation_id: As given in the path; what is no id is unknown.

    Raises:
        NotFound: There is none, or it is someone else's.
    """
    row = await database.fetch_one(
        storage.operations.FIND, user_id=user_id, name=name, operation_id=_uuid(operation_id)
    )
    if row is None:
        raise NotFound("Disk operation")
    return to_struct(row, Operation)


async def read_disk(executor: Executor, disk_id: UUID) -> Disk:
    """A disk that is known to be there."""
    disk = await find_disk_by_id(executor, disk_id)
    if disk is None:
        raise NotFound("Disk")
    return disk


async def find_disk_by_id(executor: Executor, disk_id: UUID) -> Disk | None:
    """A disk, whosever it is and whatever its state; None when there is none."""
    row = await executor.fetch_one(storage.disks.READ, disk_id=disk_id)
    return None if row is None else to_struct(row, Disk)


async def lock_disk(tx: Transaction, disk_id: UUID) -> Disk:
    """A disk that is known to be there, locked until the end of the transaction."""
    await tx.execute(storage.disks.LOCK, disk_id=disk_id)
    return await read_disk(tx, disk_id)


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


async def find_source(executor: Executor, *, user_id: int, snapshot: str) -> Snapshot:
    """A user's snapshot by our id or AWS's.

    Raises:
        NotFound: There is none, or it is someone else's.
    """
    row = await executor.fetch_one(storage.snapshots.FIND_OWN, user_id=user_id, id=_uuid(snapshot), aws_id=snapshot)
    if row is None:
        raise NotFound("Snapshot")
    return to_struct(row, Snapshot)


async def read_snapshot(executor: Executor, snapshot_id: UUID) -> Snapshot:
    """A snapshot that is known to be there, by our id."""
    row = await executor.fetch_one(storage.snapshots.READ, id=snapshot_id)
    if row is None:
        raise NotFound("Snapshot")
    return to_struct(row, Snapshot)


async def snapshots_of(executor: Executor, disk_id: UUID, status: SnapshotState) -> list[Snapshot]:
    """A disk's snapshots in one state, oldest first."""
    rows = await executor.fetch_all(storage.snapshots.OF_DISK, disk_id=disk_id, status=status)
    return [to_struct(row, Snapshot) for row in rows]


async def ledger_disks(database: Database) -> list[LedgerDisk]:
    """Every disk, gone ones included, for the sweep."""
    return [to_struct(row, LedgerDisk) for row in await database.fetch_all(storage.ledger.DISKS)]


async def ledger_snapshots(database: Database) -> list[LedgerSnapshot]:
    """Every snapshot, gone ones included, for the sweep."""
    return [to_struct(row, LedgerSnapshot) for row in await database.fetch_all(storage.ledger.SNAPSHOTS)]


def _content_of(row: Row) -> Content:
    try:
        return to_struct(row, Content)
    except msgspec.ValidationError:
        # stored before listings were looked at so closely: it is none
        return msgspec.structs.replace(NO_CONTENT, missed_job_id=row["missed_job_id"] or row["job_id"])


def _uuid(text: str) -> UUID | None:
    try:
        return UUID(text)
    except ValueError:
        return None
