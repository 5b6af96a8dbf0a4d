"""Claims: which job has a disk, from the job's submission to its end."""

from datetime import datetime
from uuid import UUID, uuid4

from services.disks import storage
from services.disks.context import Context
from services.disks.domain.claim import (
    CLAIM_TABLE,
    ClaimEvent,
    ClaimState,
    JobCannotClaim,
    NewClaim,
    check_claim,
    check_size,
    lost_claim_text,
)
from services.disks.domain.disk import DEFAULT_SIZE_GB, Disk, DiskState, NewDisk
from services.disks.domain.facts import ClaimLost, ClaimReleased
from services.disks.domain.refusals import DiskInUse
from services.disks.domain.state_tables import state_after
from services.disks.operations.announce import announce_claim
from services.disks.operations.create import insert_disk
from services.disks.operations.read import lock_disk, read_disk
from services.disks.operations.record import record_fact
from services.disks.operations.snapshot import snapshot_after_job
from shared.database import Database, Transaction


async def claim_disk(context: Context, *, wanted: NewClaim) -> Disk:
    """Give a job the exclusive, provisional lease on a disk; a disk that does not exist yet is recorded to be made.

    Idempotent by the job's id.

    Raises:
        InvalidInput: Name or size cannot be, or the disk exists with another size.
        DiskInUse: Another job of the user has it.
        JobCannotClaim: The job has ended or has another disk.
        LimitReached: The disk would have to be made, and would be too many or too large.
    """
    check_claim(wanted)
    new = NewDisk(
        disk_id=uuid4(),
        operation_id=uuid4(),
        user_id=wanted.user_id,
        username=wanted.username,
        name=wanted.disk_name,
        size_gb=wanted.size_gb or DEFAULT_SIZE_GB,
        availability_zone=wanted.availability_zone,
        requested_at=wanted.at,
        job_id=wanted.job_id,
    )
    async with context.database.transaction() as tx:
        disk = await read_disk(tx, await _lock_or_insert(tx, context, new))
        check_size(wanted, disk.size_gb)
        taken = await tx.execute(
            storage.claims.TAKE_PROVISIONALLY,
            disk_id=disk.id,
            job_id=wanted.job_id,
            now=wanted.at,
            expires_at=wanted.at + wanted.provisional_for,
        )
        if not taken:
            _check_held_already(disk, wanted)
    return disk


async def confirm_claim(tx: Transaction, context: Context, *, job_id: UUID, disk_id: UUID, now: datetime) -> None:
    """The job is submitted: its claim holds until it ends.

    A claim that was dropped meanwhile is taken again if the disk is still free; else the job learns that it has none.
    """
    await tx.execute(storage.disks.LOCK, disk_id=disk_id)
    claim = await tx.fetch_one(storage.claims.FIND, job_id=job_id)
    if claim and state_after(CLAIM_TABLE, ClaimState(claim["state"]), ClaimEvent.SUBMITTED_LATE) is None:
        return
    disk = await read_disk(tx, disk_id)
    confirmed = await tx.execute(storage.claims.CONFIRM, job_id=job_id, disk_id=disk_id, now=now) or await tx.execute(
        storage.claims.TAKE_LATE, disk_id=disk_id, job_id=job_id, now=now, expires_at=now
    )
    if confirmed:
        await announce_claim(tx, context, disk, now)
    else:
        await record_fact(tx, context, disk, ClaimLost(job_id=job_id, error=lost_claim_text(disk)), now)


async def release_claim(
    tx: Transaction, context: Context, *, job_id: UUID, used: bool, snapshot_id: UUID, now: datetime
) -> None:
    """The job has ended: its disk is free, and no late message brings the claim back.

    Args:
        tx: The consumer's.
        context: Of the service.
        job_id: The job.
        used: Whether it ever had a pod that could write on the disk; then a snapshot is taken.
        snapshot_id: Id of that.
        now: Time of the release.
    """
    claim = await tx.fetch_one(storage.claims.FIND, job_id=job_id)
    if claim is None:
        return
    await tx.execute(storage.disks.LOCK, disk_id=claim["disk_id"])
    disk_id = await tx.fetch_value(storage.claims.RELEASE, job_id=job_id, now=now)
    if disk_id is None:
        await tx.execute(storage.claims.CLOSE_DROPPED, job_id=job_id, now=now)
        return
    disk = await lock_disk(tx, disk_id)
    disk = await record_fact(tx, context, disk, ClaimReleased(job_id=job_id), now) or disk
    if used and disk.state is DiskState.AVAILABLE:
        await tx.execute(storage.contents.MISS, disk_id=disk_id, job_id=job_id)
        await snapshot_after_job(tx, context, disk, snapshot_id=snapshot_id, job_id=job_id, now=now)


async def drop_expired_claims(database: Database, *, now: datetime) -> int:
    """Free the disks of jobs that never came; how many."""
    return await database.execute(storage.claims.DROP_EXPIRED, now=now)


async def _lock_or_insert(tx: Transaction, context: Context, new: NewDisk) -> UUID:
    """The locked row of the user's disk of that name, new or old."""
    while True:
        disk_id: UUID | None = await tx.fetch_value(storage.disks.LOCK_ALIVE, user_id=new.user_id, name=new.name)
        if disk_id is not None:
            return disk_id
        if await insert_disk(tx, context, new):
            return new.disk_id
        # another transaction made it in between, or is deleting it: look again


def _check_held_already(disk: Disk, wanted: NewClaim) -> None:
    if disk.job_id == wanted.job_id:
        return
    if disk.job_id is not None:
        raise DiskInUse(disk.name, disk.job_id)
    raise JobCannotClaim
