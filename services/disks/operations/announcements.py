"""Tell a job that it can use its disk."""

from datetime import datetime

from services.disks import storage
from services.disks.domain.disk import Disk
from shared.contracts.disks import DiskClaimed
from shared.database import Transaction
from shared.messaging import Draft, record_event
from shared.messaging.outbox import Wakes


async def announce_claim(tx: Transaction, relay: Wakes, disk: Disk, now: datetime) -> None:
    """Tell the job that its disk can be used, once, when the claim holds and the disk is ready."""
    if not disk.ready:
        return
    job_id = await tx.fetch_value(storage.claims.ANNOUNCE, disk_id=disk.id, now=now)
    if job_id is None:
        return
    version = await tx.fetch_value(storage.disks.NEXT_VERSION, disk_id=disk.id, now=now)
    event = DiskClaimed(
        disk_id=disk.id,
        user_id=disk.user_id,
        disk_name=disk.name,
        job_id=job_id,
        volume_id=disk.volume_id or "",
        availability_zone=disk.availability_zone,
    )
    await record_event(tx, Draft(data=event, version=version, occurred_at=now), relay)
