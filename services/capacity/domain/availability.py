"""What is free, counted from the nodes and leases of one snapshot.

`total`, `in_use` and `available` are counted over the same nodes, those that are ready and schedulable, so that
`total = available + in_use` always holds. A lease on a cordoned node counts in none of the three; that node's own row
shows it.
"""

from collections.abc import Iterable, Sequence
from datetime import datetime

import msgspec

from services.capacity.domain.fleet import Node, by_type
from services.capacity.domain.queue_entry import EntryState
from shared.contracts.catalogue import CATALOGUE
from shared.contracts.jobs import JobStatus

OVER = frozenset({JobStatus.COMPLETED, JobStatus.FAILED, JobStatus.CANCELLED, JobStatus.EXPIRED})
"""Statuses of jobs that are over for their users, although their GPUs may still be held."""


class QueueCount(msgspec.Struct, frozen=True, kw_only=True):
    """How many jobs that have not ended are equal in these fields."""

    gpu_type: str
    state: EntryState
    ready: bool
    cancelling: bool
    status: JobStatus
    """The latest that the jobs service reported."""
    jobs: int
    gpus: int


class Snapshot(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that the answers are made from, as it is at one instant."""

    nodes: tuple[Node, ...]
    """Those of a known GPU type that are not gone."""
    counts: tuple[QueueCount, ...]
    as_of: datetime | None
    """Time of the newest fact that is counted; None: Kubernetes has not answered yet."""
    starts: int = 0
    """Jobs that started in the last 30 days and had been given a p90 before."""
    starts_in_time: int = 0
    """Those of them that started before the first p90 that they were given."""


class TypeAvailability(msgspec.Struct, frozen=True, kw_only=True):
    gpu_type: str
    total: int
    available: int
    in_use: int
    queued: int
    """GPUs that waiting jobs ask for."""
    max_per_node: int
    max_placeable: int
    """GPUs of the largest job that could start now."""
    nodes: tuple[Node, ...]


class ClusterStatus(msgspec.Struct, frozen=True, kw_only=True):
    types: tuple[TypeAvailability, ...]
    jobs: dict[JobStatus, int]
    """Number of jobs for active, preparing, queued and pending."""


def count_availability(snapshot: Snapshot) -> tuple[TypeAvailability, ...]:
    """One entry for each GPU type with nodes or with jobs in the queue, in the order of the catalogue."""
    fleets = by_type(snapshot.nodes)
    in_queue = {count.gpu_type for count in snapshot.counts if status_of(count) in _IN_QUEUE}
    return tuple(
        _availability_of(gpu_type, fleets.get(gpu_type, []), snapshot.counts)
        for gpu_type in sorted(fleets.keys() | in_queue, key=_catalogue_order)
    )


def count_cluster(snapshot: Snapshot) -> ClusterStatus:
    """The same counts, and jobs by status."""
    jobs = dict.fromkeys((JobStatus.ACTIVE, JobStatus.PREPARING, JobStatus.QUEUED, JobStatus.PENDING), 0)
    for count in snapshot.counts:
        status = status_of(count)
        if status is not None:
            jobs[status] += count.jobs
    return ClusterStatus(types=count_availability(snapshot), jobs=jobs)


def status_of(count: QueueCount) -> JobStatus | None:
    """The status under which these jobs are counted; None: they are over, only their pods may not be gone yet.

    Capacity knows first who waits and who holds GPUs; only the jobs service knows whose pod is ready.
    """
    if count.state in {EntryState.UNKNOWN, EntryState.ENDED} or count.status in OVER:
        return None
    if count.state == EntryState.LEASED:
        return JobStatus.ACTIVE if count.status == JobStatus.ACTIVE else JobStatus.PREPARING
    if count.cancelling:
        return None
    return JobStatus.QUEUED if count.ready else JobStatus.PENDING


_IN_QUEUE = frozenset({JobStatus.QUEUED, JobStatus.PENDING})
_ORDER = {instance.gpu_type: index for index, instance in reversed(list(enumerate(CATALOGUE)))}
_PER_NODE = {instance.gpu_type: instance.gpus_per_node for instance in CATALOGUE}


def _availability_of(gpu_type: str, fleet: Sequence[Node], counts: Iterable[QueueCount]) -> TypeAvailability:
    usable = [node for node in fleet if node.usable]
    return TypeAvailability(
        gpu_type=gpu_type,
        total=sum(node.gpus for node in usable),
        available=sum(node.placeable for node in usable),
        in_use=sum(node.in_use for node in usable),
        queued=sum(c.gpus for c in counts if c.gpu_type == gpu_type and status_of(c) == JobStatus.QUEUED),
        max_per_node=max((node.gpus for node in fleet), default=0) or _PER_NODE.get(gpu_type, 0),
        max_placeable=max((node.placeable for node in usable), default=0),
        nodes=tuple(sorted(fleet, key=lambda node: node.name)),
    )


def _catalogue_order(gpu_type: str) -> tuple[int, str]:
    return _ORDER.get(gpu_type, len(_ORDER)), gpu_type
