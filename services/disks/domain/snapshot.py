"""Snapshots: what they are, and which are kept."""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from enum import StrEnum
from uuid import UUID

import msgspec

from services.disks.domain.state_tables import Transition


class SnapshotState(StrEnum):
    PENDING = "pending"
    """Wanted; AWS has been asked, or will be."""
    COMPLETED = "completed"
    FAILED = "failed"
    """AWS refused it: there is none."""
    DELETING = "deleting"
    DELETED = "deleted"


class SnapshotEvent(StrEnum):
    BOUND = "bound"
    """AWS makes it, under an id of its own."""
    COMPLETED = "completed"
    REFUSED = "refused"
    """AWS will never make it."""
    LET_GO = "let_go"
    """It need not be kept."""
    REMOVED = "removed"
    """AWS has deleted it."""


SNAPSHOT_TABLE: Mapping[SnapshotEvent, Transition[SnapshotState]] = {
    SnapshotEvent.BOUND: Transition((SnapshotState.PENDING,), SnapshotState.PENDING),
    SnapshotEvent.COMPLETED: Transition((SnapshotState.PENDING,), SnapshotState.COMPLETED),
    SnapshotEvent.REFUSED: Transition((SnapshotState.PENDING,), SnapshotState.FAILED),
    SnapshotEvent.LET_GO: Transition((SnapshotState.COMPLETED,), SnapshotState.DELETING),
    SnapshotEvent.REMOVED: Transition((SnapshotState.DELETING,), SnapshotState.DELETED),
}


class Snapshot(msgspec.Struct, frozen=True, kw_only=True):
    """A snapshot as the owner of the disk sees it."""

    id: UUID
    """Also of the operation that takes it."""
    disk_id: UUID
    snapshot_id: str | None
    """AWS's id; None until AWS was asked."""
    job_id: UUID | None
    """Job that had used the disk; None when its owner asked."""
    size_gb: int
    status: SnapshotState
    error: str | None
    """For a person; None unless failed."""
    created_at: datetime
    completed_at: datetime | None
    asked_at: datetime | None = None
    """When AWS was last asked without an answer that says what came of it; None: it was not."""


class Retention(msgspec.Struct, frozen=True, kw_only=True):
    """Which of a disk's snapshots are kept: the newest ones, and the newest of each week for some time."""

    newest: int
    """How many of the newest; at least one is kept whatever this says."""
    weeks: int
    """For how many weeks, this one included, the newest of each is kept."""


def superfluous(snapshots: Sequence[Snapshot], retention: Retention, now: datetime) -> list[Snapshot]:
    """The completed snapshots that need not be kept, oldest first; never the newest one.

    Weeks are ISO 8601's, Monday to Sunday in UTC.
    """
    newest_first = sorted(
        (snapshot for snapshot in snapshots if snapshot.status is SnapshotState.COMPLETED),
        key=lambda snapshot: (snapshot.created_at, snapshot.id),
        reverse=True,
    )
    kept = {snapshot.id for snapshot in newest_first[: max(1, retention.newest)]}
    oldest_week = _monday(now) - timedelta(weeks=retention.weeks - 1)
    weeks_seen: set[datetime] = set()
    for snapshot in newest_first:
        week = _monday(snapshot.created_at)
        if week >= oldest_week and week not in weeks_seen:
            kept.add(snapshot.id)
        weeks_seen.add(week)
    return [snapshot for snapshot in reversed(newest_first) if snapshot.id not in kept]


def _monday(moment: datetime) -> datetime:
    day = moment.replace(hour=0, minute=0, second=0, microsecond=0)
    return day - timedelta(days=day.weekday())
