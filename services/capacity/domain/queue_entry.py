"""A job's entry in the queue, and how each event of the jobs service changes it.

Events may come repeated and in any order. So an entry takes from each event what is new, and an older event undoes
nothing: flags are only set, ends of time boxes only move later, epochs only rise, and ended stays ended. The same
events lead to the same entry in whatever order they come. A requeue alone depends on its moment, which its epoch names.
"""

from datetime import datetime
from enum import StrEnum
from uuid import UUID

import msgspec

from shared.contracts.jobs import (
    JobCancelRequested,
    JobEnded,
    JobEvent,
    JobExpiring,
    JobExtended,
    JobPrioritised,
    JobReady,
    JobRequeued,
    JobStarted,
    JobStatus,
    JobSubmitted,
)


class EntryState(StrEnum):
    UNKNOWN = "unknown"
    """Its `submitted` has not come yet."""
    WAITING = "waiting"
    LEASED = "leased"
    REVOKED = "revoked"
    """Its node is gone; the jobs service decides whether it is queued again or is over."""
    ENDED = "ended"


class QueueEntry(msgspec.Struct, frozen=True, kw_only=True):
    job_id: UUID
    state: EntryState = EntryState.UNKNOWN
    user_id: int | None = None
    username: str | None = None
    gpu_type: str | None = None
    """This and the four fields below are None until `submitted` has come."""
    gpu_count: int | None = None
    duration_seconds: int | None = None
    submitted_at: datetime | None = None
    zone: str | None = None
    ready: bool = False
    """It waits for nothing but GPUs."""
    cancelling: bool = False
    """Its user has cancelled it: it is no longer scheduled."""
    status: JobStatus = JobStatus.PENDING
    """The latest that the jobs service reported."""
    job_version: int = 0
    """Version of the job at that status."""
    epoch: int = 0
    """Number of its last lease; 0: it never had one."""
    node: str | None = None
    """Of its lease; None without one."""
    expires_at: datetime | None = None
    """End of its time box; None before it starts."""
    ended_at: datetime | None = None
    started_at: datetime | None = None
    """Start of its time box; None before."""
    priority: int = 0
    """Set by an operator; higher goes first."""
    priority_version: int = 0
    """Version of the job when its priority was set."""
    avoids: str | None = None
    """Node where Kubernetes could not run its last pod."""
    traceparent: str | None = None
    """Of the request that submitted it; None: nobody traces it."""


def entry_after(entry: QueueEntry, event: JobEvent, sequence: int) -> QueueEntry:
    """The entry after an event of the jobs service.

    Args:
        entry: As it is.
        event: About the job.
        sequence: Version of the job after the event.
    """
    entry = _note_status(entry, event, sequence)
    match event:
        case JobSubmitted():
            entry = _submitted(entry, event)
        case JobReady():
            entry = msgspec.structs.replace(entry, ready=True, zone=event.availability_zone or entry.zone)
        case JobStarted() | JobExtended() | JobExpiring():
            entry = _runs_until(entry, event)
        case JobPrioritised():
            if sequence > entry.priority_version:
                entry = msgspec.structs.replace(entry, priority=event.priority, priority_version=sequence)
        case JobRequeued():
            entry = _requeued(entry, event)
        case JobCancelRequested():
            entry = msgspec.structs.replace(entry, cancelling=True)
        case JobEnded():
            entry = _ended(entry, event)
    return entry


def ends_lease(before: QueueEntry, after: QueueEntry) -> bool:
    """Whether the change ends a lease."""
    return before.state == EntryState.LEASED and after.state != EntryState.LEASED


def _note_status(entry: QueueEntry, event: JobEvent, sequence: int) -> QueueEntry:
    if sequence <= entry.job_version:
        return entry
    return msgspec.structs.replace(
        entry, status=event.status, job_version=sequence, user_id=event.user_id, username=event.username
    )


def _submitted(entry: QueueEntry, event: JobSubmitted) -> QueueEntry:
    if entry.gpu_type is not None:
        return entry
    return msgspec.structs.replace(
        entry,
        state=EntryState.WAITING if entry.state == EntryState.UNKNOWN else entry.state,
        gpu_type=event.gpu_type,
        gpu_count=event.gpu_count,
        duration_seconds=event.duration_seconds,
        submitted_at=event.submitted_at,
        zone=entry.zone or event.availability_zone,
        ready=entry.ready or not event.waits_for_disk,
    )


def _runs_until(entry: QueueEntry, event: JobStarted | JobExtended | JobExpiring) -> QueueEntry:
    latest = max(filter(None, (entry.expires_at, event.expires_at)))
    started_at = event.started_at if isinstance(event, JobStarted) else entry.started_at
    return msgspec.structs.replace(entry, expires_at=latest, started_at=started_at)


def _requeued(entry: QueueEntry, event: JobRequeued) -> QueueEntry:
    if event.epoch < entry.epoch or entry.state == EntryState.ENDED:
        return entry
    entry = msgspec.structs.replace(entry, epoch=event.epoch)
    if entry.state in {EntryState.LEASED, EntryState.REVOKED}:
        # None after `revoked`: the node is gone, there is nothing to avoid
        avoids = entry.node or entry.avoids
        return msgspec.structs.replace(
            entry, state=EntryState.WAITING, node=None, expires_at=None, started_at=None, avoids=avoids
        )
    return entry


def _ended(entry: QueueEntry, event: JobEnded) -> QueueEntry:
    # whatever epoch it ended under: nothing of it runs any more, and a lease that it never saw must not stay
    epoch = max(entry.epoch, event.epoch)
    return msgspec.structs.replace(
        entry, state=EntryState.ENDED, node=None, epoch=epoch, ended_at=entry.ended_at or event.ended_at
    )


class ShownEntry(msgspec.Struct, frozen=True, kw_only=True):
    """A waiting job as the queue is shown."""

    job_id: UUID
    user_id: int
    gpu_count: int
    duration_seconds: int
    priority: int
    submitted_at: datetime
    ready: bool
    estimated_start_at: datetime | None
    """As it was announced last; None: it cannot be estimated, or was not yet."""
    estimated_p90_at: datetime | None


class ShownQueue(msgspec.Struct, frozen=True, kw_only=True):
    gpu_type: str
    jobs: int
    """All that wait."""
    gpus: int
    """That they wait for."""
    entries: list[ShownEntry]
    """The beginning."""
