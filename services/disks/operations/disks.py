"""Make a disk for a user."""

from services.disks import storage
from services.disks.domain.disk import Action, DiskState, NewDisk, Operation, OperationStatus
from shared.database import Database, Transaction
from shared.encryption import Cipher
from shared.errors import Conflict
from shared.idempotency import IdempotencyKey, Outcome, once
from shared.messaging.outbox import Wakes


class DiskExists(Conflict):
    def __init__(self, name: str) -> None:
        super().__init__(f"Disk '{name}' already exists")


async def create_disk(
    database: Database, reconciler: Wakes, *, new: NewDisk, key: IdempotencyKey | None, cipher: Cipher
) -> Outcome[Operation]:
    """Record a user's wish for a disk; the reconciler makes the volume.

    Raises:
        DiskExists: The user has a disk of that name that is not deleted.
    """
    async with database.transaction() as tx:

        async def effect() -> Operation:
            if not await insert_disk(tx, new):
                raise DiskExists(new.name)
            tx.after_commit(reconciler.wake)
            return _requested(new)

        return await once(tx, effect, key=key, answer_type=Operation, cipher=cipher, now=new.requested_at)


async def insert_disk(tx: Transaction, new: NewDisk) -> bool:
    """Record the disk and its creation; False when the user has a disk of that name."""
    inserted = await tx.execute(
        storage.INSERT_DISK,
        id=new.disk_id,
        user_id=new.user_id,
        username=new.username,
        name=new.name,
        size_gb=new.size_gb,
        availability_zone=new.availability_zone,
        state=DiskState.CREATING,
        version=0,
        now=new.requested_at,
    )
    if inserted:
        await tx.execute(
            storage.INSERT_OPERATION,
            id=new.operation_id,
            disk_id=new.disk_id,
            disk_name=new.name,
            action=Action.CREATE,
            job_id=new.job_id,
            status=OperationStatus.QUEUED,
            now=new.requested_at,
        )
    return bool(inserted)


def _requested(new: NewDisk) -> Operation:
    return Operation(
        id=new.operation_id,
        disk_id=new.disk_id,
        disk_name=new.name,
        action=Action.CREATE,
        status=OperationStatus.QUEUED,
        error=None,
        created_at=new.requested_at,
        updated_at=new.requested_at,
        deleted_at=None,
        delete_date=None,
    )
