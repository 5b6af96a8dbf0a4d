"""The table of phases and facts: all that can ever happen to a disk.

What has no entry changes nothing: a late or repeated message never brings back what is gone. What a user asks for is
done or refused with the reason, in every phase. Every change that users or other services may rely on has one event.
"""

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

import msgspec
from msgspec.structs import replace

from services.disks.domain.disk import Disk, DiskPhase, DiskState
from services.disks.domain.facts import (
    ClaimAnnounced,
    ClaimLost,
    ClaimReleased,
    DeletionRequested,
    Fact,
    PurgeDue,
    RenameRequested,
    RestoreRequested,
    SnapshotCompleted,
    SnapshotDue,
    SnapshotRefused,
    SnapshotRemoved,
    SnapshotRequested,
    VolumeMade,
    VolumeRefused,
    VolumeRemoved,
)
from services.disks.domain.operation import Action
from services.disks.domain.refusals import (
    DiskBackingUp,
    DiskBeingMade,
    DiskDeleted,
    DiskExists,
    DiskInUse,
    DiskNotDeleted,
    TooLateToRestore,
)
from shared.contracts import disks as events
from shared.contracts.events import EventData
from shared.errors import NotFound


class Change(msgspec.Struct, frozen=True):
    """A disk after a fact, and the events about it."""

    disk: Disk
    events: tuple[EventData, ...] = ()


Rule = Callable[[Disk, Any, datetime], Change | None]


def change(disk: Disk, fact: Fact, now: datetime) -> Change | None:
    """What `fact` makes of `disk`; None when it changes nothing: it is stale, repeated or not possible here.

    Raises:
        GpuDevError: The fact is a request, and this is why it is refused.
    """
    rule = TABLE[disk.phase].get(type(fact))
    changed = None if rule is None else rule(disk, fact, now)
    if changed is None:
        return None
    return Change(replace(changed.disk, version=disk.version + len(changed.events)), changed.events)


def _owner(disk: Disk) -> dict[str, Any]:
    return {"disk_id": disk.id, "user_id": disk.user_id, "disk_name": disk.name}


def _become_available(disk: Disk, fact: VolumeMade, _: datetime) -> Change:
    disk = replace(
        disk,
        state=DiskState.AVAILABLE,
        volume_id=fact.volume_id,
        availability_zone=fact.availability_zone,
        name_tag=fact.name_tag,
    )
    event = events.DiskCreated(
        **_owner(disk),
        size_gb=disk.size_gb,
        volume_id=fact.volume_id,
        availability_zone=fact.availability_zone,
        operation_id=fact.operation_id,
    )
    return Change(disk, (event,))


def _fail(disk: Disk, fact: VolumeRefused, _: datetime) -> Change:
    event = events.DiskOperationFailed(
        **_owner(disk),
        operation_id=fact.operation_id,
        action=Action.CREATE,
        error=fact.error,
        job_id=fact.job_id,
    )
    return Change(replace(disk, state=DiskState.FAILED), (event,))


def _announce_claim(disk: Disk, fact: ClaimAnnounced, _: datetime) -> Change | None:
    if not disk.ready:
        return None
    event = events.DiskClaimed(
        **_owner(disk),
        job_id=fact.job_id,
        volume_id=disk.volume_id or "",
        availability_zone=disk.availability_zone,
    )
    return Change(disk, (event,))


def _refuse_claim(disk: Disk, fact: ClaimLost, _: datetime) -> Change:
    event = events.DiskOperationFailed(
        **_owner(disk), operation_id=None, action=Action.CLAIM, error=fact.error, job_id=fact.job_id
    )
    return Change(disk, (event,))


def _release(disk: Disk, fact: ClaimReleased, now: datetime) -> Change:
    event = events.DiskReleased(**_owner(disk), job_id=fact.job_id, released_at=now)
    return Change(replace(disk, last_used=now), (event,))


def _delete(disk: Disk, fact: DeletionRequested, now: datetime) -> Change:
    _check_idle(disk)
    event = events.DiskDeleted(**_owner(disk), operation_id=fact.operation_id, purge_at=fact.purge_at)
    disk = replace(disk, deleted_at=now, delete_date=fact.purge_at.date(), purge_at=fact.purge_at)
    return Change(disk, (event,))


def _restore(disk: Disk, fact: RestoreRequested, now: datetime) -> Change:
    if disk.purge_at is not None and now >= disk.purge_at:
        raise TooLateToRestore(disk.name)
    event = events.DiskRestored(**_owner(disk), operation_id=fact.operation_id)
    return Change(replace(disk, deleted_at=None, delete_date=None, purge_at=None), (event,))


def _rename(disk: Disk, fact: RenameRequested, _: datetime) -> Change:
    _check_not_in_use(disk)
    if fact.taken:
        raise DiskExists(fact.new_name)
    old_name, disk = disk.name, replace(disk, name=fact.new_name)
    return Change(disk, (events.DiskRenamed(**_owner(disk), operation_id=fact.operation_id, old_name=old_name),))


def _back_up(disk: Disk, fact: SnapshotRequested, _: datetime) -> Change:
    _check_idle(disk)
    return Change(disk, (events.DiskSnapshotStarted(**_owner(disk), operation_id=fact.snapshot_id),))


def _back_up_after_job(disk: Disk, fact: SnapshotDue, _: datetime) -> Change:
    event = events.DiskSnapshotStarted(**_owner(disk), operation_id=fact.snapshot_id, job_id=fact.job_id)
    return Change(disk, (event,))


def _note_snapshot(disk: Disk, fact: SnapshotCompleted, _: datetime) -> Change:
    event = events.DiskSnapshotCompleted(
        **_owner(disk),
        operation_id=fact.snapshot_id,
        ebs_snapshot_id=fact.ebs_snapshot_id,
        size_gb=fact.size_gb,
        job_id=fact.job_id,
    )
    return Change(disk, (event,))


def _note_refused_snapshot(disk: Disk, fact: SnapshotRefused, _: datetime) -> Change:
    # no job in it: the snapshot's job has ended, and the one that waits can start
    event = events.DiskOperationFailed(
        **_owner(disk), operation_id=fact.snapshot_id, action=Action.SNAPSHOT, error=fact.error
    )
    return Change(disk, (event,))


def _note_removed_snapshot(disk: Disk, fact: SnapshotRemoved, _: datetime) -> Change:
    event = events.DiskSnapshotDeleted(
        **_owner(disk), operation_id=fact.snapshot_id, ebs_snapshot_id=fact.ebs_snapshot_id
    )
    return Change(disk, (event,))


def _begin_purge(disk: Disk, fact: PurgeDue, now: datetime) -> Change | None:
    is_due = disk.purge_at is not None and disk.purge_at <= now
    if not is_due or fact.is_source or disk.backing_up:
        return None
    return Change(replace(disk, state=DiskState.PURGING))


def _end_purge(disk: Disk, _: VolumeRemoved, __: datetime) -> Change:
    event = events.DiskPurged(**_owner(disk), volume_id=disk.volume_id or "")
    return Change(replace(disk, state=DiskState.PURGED), (event,))


def _check_not_in_use(disk: Disk) -> None:
    if disk.job_id is not None:
        raise DiskInUse(disk.name, disk.job_id)


def _check_idle(disk: Disk) -> None:
    _check_not_in_use(disk)
    if disk.backing_up:
        raise DiskBackingUp(disk.name)


def _refuse_unmade(disk: Disk, _: Fact, __: datetime) -> Change:
    _check_not_in_use(disk)
    raise DiskBeingMade(disk.name)


def _refuse_deleted(disk: Disk, _: Fact, __: datetime) -> Change:
    raise DiskDeleted(disk.name, disk.delete_date)


def _refuse_restore(disk: Disk, _: Fact, __: datetime) -> Change:
    raise DiskNotDeleted(disk.name)


def _refuse_late_restore(disk: Disk, _: Fact, __: datetime) -> Change:
    raise TooLateToRestore(disk.name)


def _refuse_unknown(_: Disk, __: Fact, ___: datetime) -> Change:
    raise NotFound("Disk")


_NOT_ANY_MORE: Mapping[type[Fact], Rule] = {
    DeletionRequested: _refuse_unknown,
    RestoreRequested: _refuse_unknown,
    RenameRequested: _refuse_unknown,
    SnapshotRequested: _refuse_unknown,
    ClaimLost: _refuse_claim,
}

TABLE: Mapping[DiskPhase, Mapping[type[Fact], Rule]] = {
    DiskPhase.CREATING: {
        VolumeMade: _become_available,
        VolumeRefused: _fail,
        ClaimLost: _refuse_claim,
        ClaimReleased: _release,
        DeletionRequested: _refuse_unmade,
        RestoreRequested: _refuse_restore,
        RenameRequested: _rename,
        SnapshotRequested: _refuse_unmade,
    },
    DiskPhase.AVAILABLE: {
        ClaimAnnounced: _announce_claim,
        ClaimLost: _refuse_claim,
        ClaimReleased: _release,
        DeletionRequested: _delete,
        RestoreRequested: _refuse_restore,
        RenameRequested: _rename,
        SnapshotRequested: _back_up,
        SnapshotDue: _back_up_after_job,
        SnapshotCompleted: _note_snapshot,
        SnapshotRefused: _note_refused_snapshot,
        SnapshotRemoved: _note_removed_snapshot,
    },
    DiskPhase.DELETED: {
        ClaimLost: _refuse_claim,
        DeletionRequested: _refuse_deleted,
        RestoreRequested: _restore,
        RenameRequested: _refuse_deleted,
        SnapshotRequested: _refuse_deleted,
        SnapshotCompleted: _note_snapshot,
        SnapshotRefused: _note_refused_snapshot,
        SnapshotRemoved: _note_removed_snapshot,
        PurgeDue: _begin_purge,
    },
    DiskPhase.PURGING: {
        ClaimLost: _refuse_claim,
        DeletionRequested: _refuse_deleted,
        RestoreRequested: _refuse_late_restore,
        RenameRequested: _refuse_deleted,
        SnapshotRequested: _refuse_deleted,
        SnapshotRemoved: _note_removed_snapshot,
        VolumeRemoved: _end_purge,
    },
    DiskPhase.FAILED: _NOT_ANY_MORE,
    DiskPhase.PURGED: _NOT_ANY_MORE,
}
