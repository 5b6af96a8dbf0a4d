"""Claims: which job has a disk, from the job's submission to its end."""

from datetime import datetime
from uuid import UUID

from services.disks import storage
from services.disks.domain.claim import (
    ClaimState,
    ClaimWish,
    DiskInUse,
    JobCannotClaim,
    check_size,
    check_wish,
    lost_claim_text,
)
from services.disks.domain.disk import DEFAULT_SIZE_GB, Action, Disk, DiskState, NewDisk
from services.disks.domain.limits import Limits
from services.disks.operations.announcements import announce_claim
from services.disks.operations.disks import insert_disk
from services.disks.operations.queries import read_disk
from services.disks.operations.snapshots import want_snapshot
from shared.contracts.disks import DiskOperationFailed, DiskReleased
from shared.database import Database, Transaction
from shared.messaging import Draft, record_event
from shared.messaging.outbox import Wakes


async def claim_disk(
    database: Database, reconciler: Wakes, *, wish: ClaimWish, limits: Limits, new_disk_id: UUID,
    new_operation_id: UUID, zone: str,
) -> Disk:  # fmt: skip
    """Give a job the exclusive, provisional lease on a disk; a disk that does not exist yet is recorded to be made.

    Idempotent by the job's id.

    Args:
        database: Where the disks are.
        reconciler: Woken when there is a disk to make.
        wish: What the job asks for.
        limits: What the user may have.
        new_disk_id: Id of the disk if it has to be made.
        new_operation_id: Id of its creation.
        zone: Availability zone of a new disk.

    Raises:
        InvalidInput: Name or size cannot be, or the disk exists with another size.
        DiskInUse: Another job of the user has it.
        JobCannotClaim: The job has ended or has another disk.
        LimitReached: The disk would have to be made, and would be too many or too large.
    """
    check_wish(wish)
    new = NewDisk(
        disk_id=new_disk_id, operation_id=new_operation_id, user_id=wish.user_id, username=wish.username,
        name=wish.disk_name, size_gb=wish.size_gb or DEFAULT_SIZE_GB, availability_zone=zone,
        requested_at=wish.at, job_id=wish.job_id,
    )  # fmt: skip
    async with database.transaction() as tx:
        disk = await read_disk(tx, await _lock_or_insert(tx, reconciler, new, limits))
        check_size(wish, disk.size_gb)
        taken = await _take(
            tx, disk_id=disk.id, job_id=wish.job_id, state=ClaimState.PROVISIONAL, now=wish.at,
            expires_at=wish.at + wish.provisional_for,
        )  # fmt: skip
        if not taken:
            _check_held_already(disk, wish)
    return disk


async def confirm_claim(tx: Transaction, relay: Wakes, *, job_id: UUID, disk_id: UUID, now: datetime) -> None:
    """The job is submitted: its claim holds until it ends.

    A claim that was dropped meanwhile is taken again if the disk is still free; else the job is told that it has none.
    """
    await tx.execute(storage.disks.LOCK, disk_id=disk_id)
    claim = await tx.fetch_one(storage.claims.FIND, job_id=job_id)
    if claim is not None and claim["state"] in {ClaimState.CONFIRMED, ClaimState.RELEASED}:
        return
    disk = await read_disk(tx, disk_id)
    confirmed = await tx.execute(storage.claims.CONFIRM, job_id=job_id, disk_id=disk_id, now=now)
    if confirmed or await _take(
        tx, disk_id=disk_id, job_id=job_id, state=ClaimState.CONFIRMED, now=now, expires_at=now
    ):
        await announce_claim(tx, relay, disk, now)
    else:
        await _refuse_claim(tx, relay, disk, job_id, now)


async def release_claim(
    tx: Transaction, relay: Wakes, *, job_id: UUID, used: bool, snapshot_id: UUID, now: datetime
) -> None:
    """The job has ended: its disk is free, and no late message brings the claim back.

    Args:
        tx: The consumer's.
        relay: Woken for events.
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
    await tx.execute(storage.disks.SET_LAST_USED, disk_id=disk_id, now=now)
    version = await tx.fetch_value(storage.disks.NEXT_VERSION, disk_id=disk_id, now=now)
    disk = await read_disk(tx, disk_id)
    event = DiskReleased(disk_id=disk.id, user_id=disk.user_id, disk_name=disk.name, job_id=job_id, released_at=now)
    await record_event(tx, Draft(data=event, version=version, occurred_at=now), relay)
    if used and disk.state is DiskState.AVAILABLE:
        await tx.execute(storage.contents.MISS, disk_id=disk_id, job_id=job_id)
        await want_snapshot(tx, relay, disk, snapshot_id=snapshot_id, job_id=job_id, now=now)


async def drop_expired_claims(database: Database, *, now: datetime) -> int:
    """Free the disks of jobs that never came; how many."""
    return await database.execute(storage.claims.DROP_EXPIRED, now=now)


async def _lock_or_insert(tx: Transaction, reconciler: Wakes, new: NewDisk, limits: Limits) -> UUID:
    """The locked row of the user's disk of that name, new or old."""
    while True:
        disk_id: UUID | None = await tx.fetch_value(storage.disks.LOCK_ALIVE, user_id=new.user_id, name=new.name)
        if disk_id is not None:
            return disk_id
        if await insert_disk(tx, new, limits):
            tx.after_commit(reconciler.wake)
            return new.disk_id
        # another transaction made it in between, or is deleting it: look again


async def _take(
    tx: Transaction, *, disk_id: UUID, job_id: UUID, state: ClaimState, now: datetime, expires_at: datetime
) -> bool:
    return bool(
        await tx.execute(
            storage.claims.TAKE, disk_id=disk_id, job_id=job_id, state=state, now=now, expires_at=expires_at
        )
    )


def _check_held_already(disk: Disk, wish: ClaimWish) -> None:
    if disk.job_id == wish.job_id:
        return
    if disk.job_id is not None:
        raise DiskInUse(disk.name, disk.job_id)
    raise JobCannotClaim


async def _refuse_claim(tx: Transaction, relay: Wakes, disk: Disk, job_id: UUID, now: datetime) -> None:
    version = await tx.fetch_value(storage.disks.NEXT_VERSION, disk_id=disk.id, now=now)
    event = DiskOperationFailed(
        disk_id=disk.id,
        user_id=disk.user_id,
        disk_name=disk.name,
        operation_id=None,
        action=Action.CLAIM,
        error=lost_claim_text(disk),
        job_id=job_id,
    )
    await record_event(tx, Draft(data=event, version=version, occurred_at=now), relay)
