"""Steps of the reconciler's work on creations: lease, postpone, complete, fail."""

from datetime import datetime, timedelta
from uuid import UUID

import msgspec

from services.disks import storage
from services.disks.domain.disk import Action, OperationStatus
from services.disks.operations.claims import announce_claim
from services.disks.queries import read_disk
from shared.contracts.disks import DiskCreated, DiskOperationFailed
from shared.database import Database
from shared.messaging import Draft, record_event
from shared.messaging.outbox import Wakes


class LeasedCreation(msgspec.Struct, frozen=True, kw_only=True):
    """A creation that this worker alone may work, until its lease is over."""

    id: UUID
    disk_id: UUID
    disk_name: str
    """At the time of the request."""
    job_id: UUID | None
    """Job whose claim asked for the disk; None when a user did."""
    lease: int
    """Proof of the lease: 1 for the first, more when the volume may have been asked for before."""
    failures: int
    """Attempts in a row that brought nothing."""
    user_id: int
    size_gb: int
    availability_zone: str

    @property
    def told_operation_id(self) -> UUID | None:
        """The id in events: None when a job's claim made the disk."""
        return None if self.job_id else self.id


async def lease_creations(
    database: Database, *, now: datetime, lease_for: timedelta, limit: int
) -> list[LeasedCreation]:
    """Lease operations that are due; what other replicas hold is passed over."""
    rows = await database.fetch_all(storage.LEASE_OPERATIONS, now=now, worked_until=now + lease_for, limit=limit)
    return [msgspec.convert(dict(row), LeasedCreation) for row in rows]


async def postpone(database: Database, *, work: LeasedCreation, until: datetime, failures: int) -> None:
    """The operation is due again at `until`: to rest between attempts, or to keep the lease while still working."""
    await database.execute(
        storage.POSTPONE_OPERATION, operation_id=work.id, held_lease=work.lease, worked_until=until, failures=failures
    )


async def complete_creation(
    database: Database, relay: Wakes, *, work: LeasedCreation, volume_id: str, availability_zone: str, now: datetime
) -> bool:
    """The volume is there: the disk can be used, and a job that waits for it is told.

    Returns:
        False: the lease was lost or the disk is no longer being made; nothing was changed.
    """
    async with database.transaction() as tx:
        await tx.execute(storage.LOCK_DISK, disk_id=work.disk_id)
        ended = await tx.execute(
            storage.END_OPERATION, operation_id=work.id, held_lease=work.lease, status=OperationStatus.COMPLETED,
            error=None, now=now,
        )  # fmt: skip
        if not ended:
            return False
        version = await tx.fetch_value(
            storage.SET_AVAILABLE, disk_id=work.disk_id, volume=volume_id, zone=availability_zone, now=now
        )
        disk = await read_disk(tx, work.disk_id)
        event = DiskCreated(
            disk_id=disk.id, user_id=disk.user_id, disk_name=disk.name, size_gb=disk.size_gb, volume_id=volume_id,
            availability_zone=availability_zone, operation_id=work.told_operation_id,
        )  # fmt: skip
        await record_event(tx, Draft(data=event, version=version, occurred_at=now), relay)
        await announce_claim(tx, relay, disk, now)
    return True


async def fail_creation(database: Database, relay: Wakes, *, work: LeasedCreation, error: str, now: datetime) -> bool:
    """AWS will never make the volume: the disk never was, its name is free, a job that waits for it is told.

    Returns:
        False: the lease was lost; nothing was changed.
    """
    async with database.transaction() as tx:
        await tx.execute(storage.LOCK_DISK, disk_id=work.disk_id)
        ended = await tx.execute(
            storage.END_OPERATION, operation_id=work.id, held_lease=work.lease, status=OperationStatus.FAILED,
            error=error, now=now,
        )  # fmt: skip
        if not ended:
            return False
        version = await tx.fetch_value(storage.SET_FAILED, disk_id=work.disk_id, now=now)
        job_id = await tx.fetch_value(storage.DROP_CLAIM_OF_DISK, disk_id=work.disk_id, now=now)
        event = DiskOperationFailed(
            disk_id=work.disk_id, user_id=work.user_id, disk_name=work.disk_name,
            operation_id=work.told_operation_id, action=Action.CREATE, error=error, job_id=job_id,
        )  # fmt: skip
        await record_event(tx, Draft(data=event, version=version, occurred_at=now), relay)
    return True


async def purge_history(database: Database, *, before: datetime) -> None:
    """Forget ended operations, closed claims and disks that never were, if nothing happened to them since `before`."""
    await database.execute(storage.PURGE_OPERATIONS, before=before)
    await database.execute(storage.PURGE_CLAIMS, before=before)
    await database.execute(storage.PURGE_FAILED_DISKS, before=before)
