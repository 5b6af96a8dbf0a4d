"""When a disk may be changed, and what is said when it may not."""

from datetime import date, datetime

from services.disks.domain.claim import DiskInUse
from services.disks.domain.disk import Disk, DiskState
from services.disks.domain.snapshot import Snapshot, SnapshotState
from shared.errors import Conflict, Gone, InvalidInput, Problem


class DiskExists(Conflict):
    def __init__(self, name: str) -> None:
        super().__init__(f"Disk '{name}' already exists")


class DiskBeingMade(Conflict):
    def __init__(self, name: str) -> None:
        super().__init__(f"Disk '{name}' is still being created")


class DiskBackingUp(Conflict):
    def __init__(self, name: str) -> None:
        super().__init__(f"Disk '{name}' is being backed up")


class DiskDeleted(Gone):
    def __init__(self, name: str, delete_date: date | None) -> None:
        super().__init__(f"Disk '{name}' is marked for deletion on {delete_date}")


class DiskNotDeleted(Conflict):
    def __init__(self, name: str) -> None:
        super().__init__(f"Disk '{name}' is not deleted")


class NameTakenSince(Conflict):
    def __init__(self, name: str) -> None:
        super().__init__(f"Another disk has been named '{name}' since; rename that one first")


class TooLateToRestore(Gone):
    def __init__(self, name: str) -> None:
        super().__init__(f"Disk '{name}' is being purged: its time after deletion is over")


class SnapshotNotReady(Conflict):
    def __init__(self) -> None:
        super().__init__("The snapshot is not completed")


def check_deletable(disk: Disk) -> None:
    """Refuse the deletion of a disk that something still needs.

    Raises:
        DiskDeleted: Already.
        Conflict: In use, being made, or being backed up.
    """
    check_not_deleted(disk)
    check_idle(disk)


def check_idle(disk: Disk) -> None:
    """Refuse what needs a disk that nobody uses and that is there.

    Raises:
        Conflict: In use, being made, or being backed up.
    """
    check_not_in_use(disk)
    if disk.state is DiskState.CREATING:
        raise DiskBeingMade(disk.name)
    if disk.backing_up:
        raise DiskBackingUp(disk.name)


def check_not_in_use(disk: Disk) -> None:
    """Refuse what no job may be in the way of.

    Raises:
        DiskInUse: With the job.
    """
    if disk.job_id is not None:
        raise DiskInUse(disk.name, disk.job_id)


def check_not_deleted(disk: Disk) -> None:
    """Refuse what only a disk that is not deleted allows.

    Raises:
        DiskDeleted: With the day of its end.
    """
    if disk.deleted_at is not None:
        raise DiskDeleted(disk.name, disk.delete_date)


def check_restorable(disk: Disk, now: datetime) -> None:
    """Refuse to bring back what is not deleted, or is gone.

    Raises:
        DiskNotDeleted: Nothing to restore.
        TooLateToRestore: Its time is over.
    """
    if disk.deleted_at is None:
        raise DiskNotDeleted(disk.name)
    if disk.state is not DiskState.AVAILABLE or (disk.purge_at is not None and now >= disk.purge_at):
        raise TooLateToRestore(disk.name)


def check_source(snapshot: Snapshot, size_gb: int | None) -> int:
    """The size of a disk that is made from a snapshot: as asked, else the snapshot's.

    Raises:
        SnapshotNotReady: It is not completed, or is being deleted.
        InvalidInput: Smaller than the snapshot.
    """
    if snapshot.status is not SnapshotState.COMPLETED:
        raise SnapshotNotReady
    if size_gb is not None and size_gb < snapshot.size_gb:
        text = f"Must be at least the snapshot's {snapshot.size_gb} GB"
        raise InvalidInput([Problem("greater_than_equal", ("body", "size_gb"), text)])
    return size_gb or snapshot.size_gb
