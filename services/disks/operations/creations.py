"""How the making of a volume ends."""

from datetime import datetime

from services.disks import storage
from services.disks.domain.disk import Action, OperationStatus
from services.disks.operations.announcements import announce_claim
from services.disks.operations.leases import Work, end_work
from services.disks.operations.queries import read_disk
from services.disks.operations.tags import want_tags
from shared.contracts.disks import DiskCreated, DiskOperationFailed
from shared.database import Database
from shared.messaging import Draft, record_event
from shared.messaging.outbox import Wakes


async def complete_creation(
    database: Database, relay: Wakes, *, work: Work, volume_id: str, availability_zone: str, now: datetime
) -> bool:
    """The volume is there: the disk can be used, and a job that waits for it is told.

    Returns:
        False: the lease was lost or the disk is no longer being made; nothing was changed.
    """
    async with database.transaction() as tx:
        await tx.execute(storage.disks.LOCK, disk_id=work.disk_id)
        if not await end_work(tx, work=work, now=now):
            return False
        version = await tx.fetch_value(
            storage.disks.SET_AVAILABLE, disk_id=work.disk_id, volume=volume_id, zone=availability_zone,
            name_tag=work.disk_name, now=now,
        )  # fmt: skip
        disk = await read_disk(tx, work.disk_id)
        event = DiskCreated(
            disk_id=disk.id, user_id=disk.user_id, disk_name=disk.name, size_gb=disk.size_gb, volume_id=volume_id,
            availability_zone=availability_zone, operation_id=None if work.job_id else work.id,
        )  # fmt: skip
        await record_event(tx, Draft(data=event, version=version, occurred_at=now), relay)
        await announce_claim(tx, relay, disk, now)
        if disk.name != work.disk_name:
            await want_tags(tx, disk, now=now)
    return True


async def fail_creation(database: Database, relay: Wakes, *, work: Work, error: str, now: datetime) -> bool:
    """AWS will never make the volume: the disk never was, its name is free, a job that waits for it is told.

    Returns:
        False: the lease was lost; nothing was changed.
    """
    async with database.transaction() as tx:
        await tx.execute(storage.disks.LOCK, disk_id=work.disk_id)
        if not await end_work(tx, work=work, now=now, status=OperationStatus.FAILED, error=error):
            return False
        version = await tx.fetch_value(storage.disks.SET_FAILED, disk_id=work.disk_id, now=now)
        job_id = await tx.fetch_value(storage.claims.DROP_OF_DISK, disk_id=work.disk_id, now=now)
        disk = await read_disk(tx, work.disk_id)
        event = DiskOperationFailed(
            disk_id=disk.id, user_id=disk.user_id, disk_name=disk.name,
            operation_id=None if work.job_id else work.id, action=Action.CREATE, error=error, job_id=job_id,
        )  # fmt: skip
        await record_event(tx, Draft(data=event, version=version, occurred_at=now), relay)
    return True
