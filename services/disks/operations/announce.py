"""Announce a disk to the job that can use it."""

from datetime import datetime

from services.disks import storage
from services.disks.context import Context
from services.disks.domain.disk import Disk
from services.disks.domain.facts import ClaimAnnounced
from services.disks.operations.record import record_fact
from shared.database import Transaction


async def announce_claim(tx: Transaction, context: Context, disk: Disk, now: datetime) -> Disk:
    """Announce to the job that its disk can be used, once, when the claim holds and the disk is ready.

    Returns:
        The disk, which the event has given a new version.
    """
    if not disk.ready:
        return disk
    job_id = await tx.fetch_value(storage.claims.ANNOUNCE, disk_id=disk.id, now=now)
    if job_id is None:
        return disk
    return await record_fact(tx, context, disk, ClaimAnnounced(job_id=job_id), now) or disk
