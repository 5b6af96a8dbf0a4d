"""Who hears an event: pure. A channel is what one listens to; an event is on each that it concerns."""

from collections.abc import Iterable, Mapping
from enum import StrEnum
from uuid import UUID

import msgspec

from shared.contracts.events import CloudEvent

_NOBODY: frozenset[str] = frozenset()
_ANYBODY = "*"


class Topic(StrEnum):
    JOBS = "jobs"
    """One's own jobs: their events, and capacity's about their places and GPUs."""
    DISKS = "disks"
    """One's own disks."""
    CLUSTER = "cluster"
    """What is everybody's: availability, and changes of nodes."""


class _About(msgspec.Struct):
    """What of an event's data says whom it concerns."""

    user_id: int | None = None
    job_id: UUID | None = None


class Heard(msgspec.Struct, frozen=True):
    """What an event says of who hears it."""

    topic: Topic | None
    """None: nobody hears it here."""
    user_id: int | None = None
    """Its owner, as far as the event says it."""
    job_id: UUID | None = None
    """The job that it is about, when its topic is that."""


def topic_channels(topics: Iterable[Topic], user_ids: Iterable[int] | None) -> frozenset[str]:
    """Channels of topics, as far as they are these users'; None: everybody's."""
    owners = [_ANYBODY] if user_ids is None else [str(user_id) for user_id in user_ids]
    return frozenset(
        channel
        for topic in topics
        for channel in ([topic.value] if topic is Topic.CLUSTER else [f"{topic}:{owner}" for owner in owners])
    )


def job_channel(job_id: UUID) -> str:
    """The channel of one job."""
    return f"job:{job_id}"


def read_event(event: CloudEvent) -> Heard:
    """What an event says of who hears it."""
    domain = event.type.split(".")[2]
    if domain not in {"jobs", "disks", "capacity"}:
        return Heard(None)
    about = msgspec.json.decode(event.data, type=_About)
    if domain == "disks":
        return Heard(Topic.DISKS, about.user_id)
    if domain == "capacity" and about.job_id is None:
        return Heard(Topic.CLUSTER)
    return Heard(Topic.JOBS, about.user_id, about.job_id)


def channels_of(heard: Heard, owners: Mapping[UUID, int]) -> frozenset[str]:
    """Channels of an event.

    Args:
        heard: What the event says.
        owners: Of jobs, for events that do not say it.
    """
    if heard.topic is None:
        return _NOBODY
    if heard.topic is Topic.CLUSTER:
        return frozenset({Topic.CLUSTER.value})
    owner = heard.user_id
    if owner is None and heard.job_id is not None:
        owner = owners.get(heard.job_id)
    channels = topic_channels([heard.topic], None)
    if owner is not None:
        channels |= topic_channels([heard.topic], [owner])
    return channels | {job_channel(heard.job_id)} if heard.job_id is not None else channels
