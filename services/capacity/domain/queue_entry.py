"""A job's place: how it changes with each event of the jobs service.

Events may come repeated and in any order, so every rule here takes what is new of an event and cannot be undone by an
older one: flags only rise, ends of time boxes only grow, epochs only rise, and ended stays ended. Whatever the order,
the same events lead to the same place; only a requeue is of its moment, and its epoch says of which.
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


class PlaceState(StrEnum):
    UNKNOWN = "unknown"
    """Its `submitted` has not come yet."""
    WAITING = "waiting"
    LEASED = "leased"
    REVOKED = "revoked"
    """It lost its node; the jobs service says whether it stands in line again or is over."""
    ENDED = "ended"


class Place(msgspec.Struct, frozen=True, kw_only=True):
    job_id: UUID
    state: PlaceState = PlaceState.UNKNOWN
    user_id: int | None = None
    gpu_type: str | None = None
    """None, as are the four below, until `submitted` has come."""
    gpu_count: int | None = None
    duration_seconds: int | None = None
    submitted_at: datetime | None = None
    zone: str | None = None
    ready: bool = False
    """It waits for nothing but GPUs."""
    cancelling: bool = False
    """Its user wants it gone: it leaves the line."""
    status: JobStatus = JobStatus.PENDING
    """As the jobs service told last."""
    job_version: int = 0
    """Of the job, when `status` was told."""
    epoch: int = 0
    """Of its last lease; 0: never had one."""
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
    """Node where its last pod found no room."""


def follow(place: Place, event: JobEvent, sequence: int) -> Place:
    """The place after an event of the jobs service.

    Args:
        place: As it is.
        event: Any of the job.
        sequence: Version of the job after the event.
    """
    place = _note_status(place, event, sequence)
    match event:
        case JobSubmitted():
            place = _submitted(place, event)
        case JobReady():
            place = msgspec.structs.replace(place, ready=True, zone=event.availability_zone or place.zone)
        case JobStarted() | JobExtended() | JobExpiring():
            place = _runs_until(place, event)
        case JobPrioritised():
            if sequence > place.priority_version:
                place = msgspec.structs.replace(place, priority=event.priority, priority_version=sequence)
        case JobRequeued():
            place = _requeued(place, event)
        case JobCancelRequested():
            place = msgspec.structs.replace(place, cancelling=True)
        case JobEnded():
            place = _ended(place, event)
    return place


def gives_back(before: Place, after: Place) -> bool:
    """Whether the change ends a lease."""
    return before.state == PlaceState.LEASED and after.state != PlaceState.LEASED


def _note_status(place: Place, event: JobEvent, sequence: int) -> Place:
    if sequence <= place.job_version:
        return place
    return msgspec.structs.replace(place, status=event.status, job_version=sequence, user_id=event.user_id)


def _submitted(place: Place, event: JobSubmitted) -> Place:
    if place.gpu_type is not None:
        return place
    return msgspec.structs.replace(
        place,
        state=PlaceState.WAITING if place.state == PlaceState.UNKNOWN else place.state,
        gpu_type=event.gpu_type,
        gpu_count=event.gpu_count,
        duration_seconds=event.duration_seconds,
        submitted_at=event.submitted_at,
        zone=place.zone or event.availability_zone,
        ready=place.ready or not event.waits_for_disk,
    )


def _runs_until(place: Place, event: JobStarted | JobExtended | JobExpiring) -> Place:
    latest = max(filter(None, (place.expires_at, event.expires_at)))
    started_at = event.started_at if isinstance(event, JobStarted) else place.started_at
    return msgspec.structs.replace(place, expires_at=latest, started_at=started_at)


def _requeued(place: Place, event: JobRequeued) -> Place:
    if event.epoch < place.epoch or place.state == PlaceState.ENDED:
        return place
    place = msgspec.structs.replace(place, epoch=event.epoch)
    if place.state in {PlaceState.LEASED, PlaceState.REVOKED}:
        # None after `revoked`: the node is gone, there is nothing to avoid
        avoids = place.node or place.avoids
        return msgspec.structs.replace(
            place, state=PlaceState.WAITING, node=None, expires_at=None, started_at=None, avoids=avoids
        )
    return place


def _ended(place: Place, event: JobEnded) -> Place:
    # whatever epoch it ended under: nothing of it runs any more, and a lease that it never saw must not stay
    epoch = max(place.epoch, event.epoch)
    return msgspec.structs.replace(
        place, state=PlaceState.ENDED, node=None, epoch=epoch, ended_at=place.ended_at or event.ended_at
    )
