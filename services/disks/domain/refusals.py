"""Why a request about a disk is refused."""

from datetime import date
from uuid import UUID

from services.disks.domain.snapshot import Snapshot, SnapshotState
from shared.errors import Conflict, Gone, InvalidInput, Problem


class DiskExists(Conflict):
    def __init__(self, name: str) -> None:
        super().__init__(f"Disk '{name}' already exists")


class DiskInUse(Conflict):
    def __init__(self, name: str, job_id: UUID) -> None:
        super().__init__(f"Disk '{name}' is in use by job {job_id}")


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
