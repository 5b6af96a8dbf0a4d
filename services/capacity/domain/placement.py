"""Which waiting job starts on which node.

Each GPU type has a queue of its own, ordered by priority, then by time of submission. Jobs are packed onto the fullest
node that fits, and smaller ones are backfilled ahead of a job that cannot start yet.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from uuid import UUID

import msgspec

from services.capacity.domain.backfill import Release, Reservation, reserve
from services.capacity.domain.fleet import Node, by_type
from services.capacity.domain.free_gpus import FreeGpus, NodeSizes, in_zone


class WaitingJob(msgspec.Struct, frozen=True, kw_only=True):
    """A job in the queue."""

    job_id: UUID
    gpu_type: str
    gpu_count: int
    submitted_at: datetime
    duration: timedelta
    ready: bool
    """False: it waits for its disk. It keeps its position and holds up no other job."""
    zone: str | None = None
    """Availability zone of its disk; None: it may run in any."""
    user_id: int = 0
    priority: int = 0
    """Set by an operator; higher goes first."""
    avoids: str | None = None
    """Node where Kubernetes could not run its last pod: taken only when no other fits."""

    @property
    def order(self) -> tuple[int, datetime, UUID]:
        """Jobs are scheduled in ascending order of this."""
        return -self.priority, self.submitted_at, self.job_id


class Allocation(msgspec.Struct, frozen=True, kw_only=True):
    """GPUs that a job holds on a node."""

    node: str
    gpu_count: int
    user_id: int = 0
    ends_at: datetime | None
    """When they come free at the latest; None: nobody knows."""


class SchedulingPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """What the operators decide about who gets GPUs."""

    most_gpus_per_user: int | None = None
    """GPUs that one user may hold at once; None: no limit."""
    preparation: timedelta = timedelta(hours=1)
    """At most this long from the lease to the start of the time box."""
    release: timedelta = timedelta(minutes=1)
    """Usual time from the end of the time box until the GPUs come free."""

    def latest_end(self, now: datetime, duration: timedelta) -> datetime:
        """When a lease granted now comes back at the latest, unless its job is extended."""
        return now + self.preparation + duration + self.release


class Placement(msgspec.Struct, frozen=True, kw_only=True):
    job_id: UUID
    node: str
    gpu_indexes: tuple[int, ...]
    backfilled: bool = False
    """It starts ahead of a job that came before it and cannot start yet."""


def schedule(
    nodes: Iterable[Node],
    queue: Iterable[WaitingJob],
    *,
    allocations: Iterable[Allocation],
    now: datetime,
    policy: SchedulingPolicy,
) -> list[Placement]:
    """The leases to make now, in the order of the queue.

    The first job of a type that fits nowhere is the head of its queue: behind it, only jobs that cannot delay it
    start. Three kinds of jobs never become the head: those that wait for their disk, those whose users hold as many
    GPUs as they may, and those that would not fit on any node even if it were empty and well. If the last kind could,
    one broken GPU would block a whole queue.
    """
    held = list(allocations)
    users = gpus_by_user(held)
    fleets = by_type(nodes)
    waiting: dict[str, list[WaitingJob]] = {}
    for job in sorted(queue, key=lambda one: one.order):
        waiting.setdefault(job.gpu_type, []).append(job)
    # a user's limit counts GPUs of all types, so the order of the types matters to it, and to nothing else
    return [
        placement
        for gpu_type in sorted(waiting.keys() & fleets.keys())
        for placement in SchedulingRound(fleets[gpu_type], held, users, now, policy).schedule(waiting[gpu_type])
    ]


def gpus_by_user(allocations: Iterable[Allocation]) -> Counter[int]:
    """How many GPUs each user holds."""
    users = Counter[int]()
    for allocation in allocations:
        users[allocation.user_id] += allocation.gpu_count
    return users


class SchedulingRound:
    """One pass over the queue of one GPU type.

    Args:
        fleet: Its nodes.
        allocations: Of all jobs on all nodes.
        users: GPUs of all types that each user holds; what is placed here is added.
        now: Time of the round.
        policy: The operators'.
    """

    def __init__(
        self,
        fleet: Sequence[Node],
        allocations: Iterable[Allocation],
        users: Counter[int],
        now: datetime,
        policy: SchedulingPolicy,
    ) -> None:
        self._nodes = {node.name: node for node in fleet}
        self._sizes = NodeSizes(fleet)
        self._allocations = allocations
        self._users = users
        self._now = now
        self._policy = policy
        self.free = FreeGpus(fleet)
        # the free indexes of each node that was taken, the lowest last
        self._indexes: dict[str, list[int]] = {}
        self.head: WaitingJob | None = None
        self.reservation: Reservation | None = None
        self._placed: dict[str, list[Release]] = {}

    def schedule(self, jobs: Iterable[WaitingJob]) -> list[Placement]:
        """The leases of these jobs, which come in the order of the queue."""
        placements = []
        for job in jobs:
            if not job.ready or not self._sizes.fits(job.gpu_count, job.zone) or self.beyond_limit(job):
                continue
            node = self.find(job)
            if node is not None:
                placements.append(self._take(job, node))
            elif self.head is None:
                self.head = job
                self.reservation = reserve(self.free, self.releases(), job.gpu_count, job.zone)
        return placements

    def beyond_limit(self, job: WaitingJob) -> bool:
        """Whether its user would hold more GPUs than a user may."""
        most = self._policy.most_gpus_per_user
        return most is not None and self._users[job.user_id] + job.gpu_count > most

    def find(self, job: WaitingJob) -> str | None:
        """The node on which the job may start now without delaying the head; None: there is none."""
        node = self._find(job, (job.avoids,)) if job.avoids else None
        return node or self._find(job, ())

    def releases(self) -> Mapping[str, Sequence[Release]]:
        """By node of the type, when GPUs that are held there come free."""
        found = {name: list(placed) for name, placed in self._placed.items()}
        for allocation in self._allocations:
            if allocation.node in self._nodes:
                found.setdefault(allocation.node, []).append((allocation.ends_at, allocation.gpu_count))
        return found

    def _find(self, job: WaitingJob, avoided: tuple[str, ...]) -> str | None:
        kept = self.reservation
        if kept is None:
            return self.free.fullest(job.gpu_count, job.zone, avoided)
        elsewhere = self.free.fullest(job.gpu_count, job.zone, (*avoided, kept.node))
        if kept.node in avoided or not self._may_use_reserved(job, kept):
            return elsewhere
        return min(filter(None, (elsewhere, kept.node)), key=lambda name: (self.free.by_node[name], name))

    def _may_use_reserved(self, job: WaitingJob, kept: Reservation) -> bool:
        fits = self.free.by_node[kept.node] >= job.gpu_count and in_zone(self._nodes[kept.node], job.zone)
        return fits and kept.admits(job.gpu_count, self._policy.latest_end(self._now, job.duration))

    def _take(self, job: WaitingJob, name: str) -> Placement:
        ends_at = self._policy.latest_end(self._now, job.duration)
        self.free.take(name, job.gpu_count)
        self._users[job.user_id] += job.gpu_count
        self._placed.setdefault(name, []).append((ends_at, job.gpu_count))
        if self.reservation is not None and self.reservation.node == name:
            self.reservation.use(job.gpu_count, ends_at)
        if name not in self._indexes:
            self._indexes[name] = list(reversed(self._nodes[name].free_indexes(self._nodes[name].gpus)))
        chosen = tuple(self._indexes[name].pop() for _ in range(job.gpu_count))
        return Placement(job_id=job.job_id, node=name, gpu_indexes=chosen, backfilled=self.head is not None)
