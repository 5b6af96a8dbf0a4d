"""The reconciler's leases on operations: one worker at a time, and what a stale one brings back is refused."""

from datetime import datetime, timedelta
from uuid import UUID

import msgspec

from services.disks import storage
from services.disks.domain.disk import Action, OperationStatus
from shared.database import Database, Executor, Row, Transaction


class Work(msgspec.Struct, frozen=True, kw_only=True):
    """An operation that this worker alone may work, until its lease is over."""

    id: UUID
    disk_id: UUID
    disk_name: str
    """At the time of the request."""
    action: Action
    job_id: UUID | None
    """Job that caused it; None when a user or nobody did."""
    lease: int
    """Proof of the lease: 1 for the first, more when AWS may have been asked before."""
    failures: int
    """Attempts in a row that brought nothing."""
    created_at: datetime
    user_id: int
    size_gb: int
    """Of the disk."""
    availability_zone: str
    volume_id: str | None
    """None while the volume is being made."""
    name_now: str
    """Of the disk, at the time of the lease."""
    source_snapshot_id: str | None
    """AWS's id of the snapshot that the disk begins with; None: it begins empty."""


class NewOperation(msgspec.Struct, frozen=True, kw_only=True):
    """An operation that is to be recorded."""

    id: UUID
    disk_id: UUID
    disk_name: str
    action: Action
    at: datetime
    job_id: UUID | None = None
    new_name: str | None = None
    """Of a rename."""
    ended: bool = False
    """True: it is done with the transaction that records it."""
    not_before: datetime | None = None
    """When it may be worked at the earliest; None: at once."""


async def record_operation(tx: Transaction, new: NewOperation) -> None:
    """Write the operation down, to be worked after the commit."""
    await tx.execute(
        storage.operations.INSERT, id=new.id, disk_id=new.disk_id, disk_name=new.disk_name, action=new.action,
        job_id=new.job_id, new_name=new.new_name, lease=0, now=new.at, worked_until=new.not_before or new.at,
        status=OperationStatus.COMPLETED if new.ended else OperationStatus.QUEUED,
    )  # fmt: skip


async def lease_work(database: Database, *, now: datetime, lease_for: timedelta, limit: int) -> list[Work]:
    """Lease operations that are due; what other replicas hold is passed over."""
    rows = await database.fetch_all(storage.operations.LEASE, now=now, worked_until=now + lease_for, limit=limit)
    return [_work_of(row) for row in rows]


async def lease_one(executor: Executor, *, operation_id: UUID, now: datetime, lease_for: timedelta) -> Work | None:
    """Lease this operation; None when it is not due, is another's, or has ended."""
    row = await executor.fetch_one(
        storage.operations.LEASE_ONE, operation_id=operation_id, now=now, worked_until=now + lease_for
    )
    return None if row is None else _work_of(row)


async def postpone(database: Database, *, work: Work, until: datetime, failures: int) -> bool:
    """The operation is due again at `until`: to rest between attempts, or to keep the lease while still working.

    Returns:
        False: the lease was lost.
    """
    return bool(
        await database.execute(
            storage.operations.POSTPONE,
            operation_id=work.id,
            held_lease=work.lease,
            worked_until=until,
            failures=failures,
        )
    )


async def end_work(
    executor: Executor, *, work: Work, now: datetime, status: OperationStatus = OperationStatus.COMPLETED,
    error: str | None = None,
) -> bool:  # fmt: skip
    """The outcome is known.

    Returns:
        False: the lease was lost or another worker was first; nothing was changed, and nothing may be.
    """
    return bool(
        await executor.execute(
            storage.operations.END, operation_id=work.id, held_lease=work.lease, status=status, error=error, now=now
        )
    )


async def still_held(tx: Transaction, work: Work) -> bool:
    """Whether the lease still holds; if so, it does until the end of the transaction."""
    return await tx.fetch_value(storage.operations.LOCK_HELD, operation_id=work.id, held_lease=work.lease) is not None


def _work_of(row: Row) -> Work:
    return msgspec.convert(dict(row), Work)
