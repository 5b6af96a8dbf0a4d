"""Keep the listing of what was on a disk when its job ended."""

from services.disks import storage
from services.disks.context import Context
from services.disks.domain.content import bounded
from services.disks.operations.read import find_disk_by_id
from shared.contracts.disks import ContentReport


async def store_content(context: Context, *, report: ContentReport) -> bool:
    """Keep a listing, if the job has the disk. Idempotent.

    Returns:
        False: the job does not have the disk (any more), or a newer listing is there.
    """
    async with context.database.transaction() as tx:
        await tx.execute(storage.disks.LOCK, disk_id=report.disk_id)
        disk = await find_disk_by_id(tx, report.disk_id)
        if disk is None or disk.job_id != report.job_id:
            return False
        stored = await tx.execute(
            storage.contents.STORE,
            disk_id=disk.id,
            job_id=report.job_id,
            epoch=report.epoch,
            taken_at=report.taken_at,
            listing=bounded(report.listing),
        )
        return bool(stored)
