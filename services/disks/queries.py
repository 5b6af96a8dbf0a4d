"""Reads: one statement each, no lock, no write."""

from uuid import UUID

import msgspec

from services.disks import storage
from services.disks.domain.disk import Disk, Operation
from shared.database import Database, Executor, Row
from shared.errors import NotFound


class DiskPage(msgspec.Struct, frozen=True):
    disks: list[Disk]
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
        storage.LIST_DISKS, user_id=user_id, include_deleted=include_deleted, limit=limit, offset=offset
    )
    return DiskPage([disk_of(row) for row in rows if row["id"] is not None], rows[0]["total"])


async def get_disk(database: Database, *, user_id: int, name: str) -> Disk:
    """A user's disk of that name: the one that is not deleted, else the newest deleted one.

    Raises:
        NotFound: There is none, or it is someone else's.
    """
    row = await database.fetch_one(storage.FIND_DISK, user_id=user_id, name=name)
    if row is None:
        raise NotFound("Disk")
    return disk_of(row)


async def get_operation(database: Database, *, user_id: int, name: str, operation_id: str) -> Operation:
    """An operation of a user's disk, by the disk's name now or then.

    Args:
        database: Where from.
        user_id: Owner of the disk.
        name: Of the disk.
        operation_id: As given in the path; what is no id is unknown.

    Raises:
        NotFound: There is none, or it is someone else's.
    """
    row = await database.fetch_one(storage.FIND_OPERATION, user_id=user_id, name=name, operation_id=_uuid(operation_id))
    if row is None:
        raise NotFound("Disk operation")
    return _operation_of(row)


async def read_disk(executor: Executor, disk_id: UUID) -> Disk:
    """A disk that is known to be there."""
    row = await executor.fetch_one(storage.READ_DISK, disk_id=disk_id)
    if row is None:
        raise NotFound("Disk")
    return disk_of(row)


def disk_of(row: Row) -> Disk:
    """The disk in a row that has its columns, among others."""
    return msgspec.convert({name: row[name] for name in Disk.__struct_fields__}, Disk)


def _operation_of(row: Row) -> Operation:
    return msgspec.convert({name: row[name] for name in Operation.__struct_fields__}, Operation)


def _uuid(text: str) -> UUID | None:
    try:
        return UUID(text)
    except ValueError:
        return None
