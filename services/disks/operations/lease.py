"""Leases on operations: one worker at a time, and what a stale one brings back is refused."""

from datetime import datetime, timedelta
from uuid import UUID

from services.disks import storage
from services.disks.domain.operation import Work
from shared.database import Database, Executor, Transaction, to_struct


async def lease_work(database: Database, *, now: datetime, lease_for: timedelta, limit: int) -> list[Work]:
    """Lease operations that are due; what other replicas hold is passed over."""
    rows = await database.fetch_all(storage.operations.LEASE, now=now, worked_until=now + lease_for, limit=limit)
    return [to_struct(row, Work) for row in rows]


async def lease_one(executor: Executor, *, operation_id: UUID, now: datetime, lease_for: timedelta) -> Work | None:
    """Lease this operation; None when it is not due, is another's, or has ended."""
    row = await executor.fetch_one(
        storage.operations.LEASE_ONE, operation_id=operation_id, now=now, worked_until=now + lease_for
    )
    return None if row is None else to_struct(row, Work)


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


async def complete_work(executor: Executor, *, work: Work, now: datetime) -> bool:
    """It is done.

    Returns:
        False: the lease was lost or another worker was first; nothing was changed, and nothing may be.
    """
    return bool(
        await executor.execute(storage.operations.COMPLETE, operation_id=work.id, held_lease=work.lease, now=now)
    )


async def fail_work(executor: Executor, *, work: Work, error: str, now: datetime) -> bool:
    """It will never be done.

    Returns:
        False: as of `complete_work`.
    """
    return bool(
        await executor.execute(
            storage.operations.FAIL, operation_id=work.id, held_lease=work.lease, error=error, now=now
        )
    )


async def still_held(tx: Transaction, work: Work) -> bool:
    """Whether the lease still holds; if so, it does until the end of the transaction."""
    return await tx.fetch_value(storage.operations.LOCK_HELD, operation_id=work.id, held_lease=work.lease) is not None
