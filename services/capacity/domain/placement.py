"""Which waiting job starts where: by priority and time of submission per GPU type, packed, backfilled."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from uuid import UUID

import msgspec

from services.capacity.domain.backfill import Release, Reservation, reserve
from services.capacity.domain.fleet import Node, by_type
from services.capacity.domain.free_gpus import Pool, Sizes, in_zone


class Waiting(msgspec.Struct, frozen=True, kw_only=True):
    """A job in the line."""

    job_id: UUID
    gpu_type: str
    gpu_count: int
    submitted_at: datetime
    duration: timedelta
    ready: bool
    """False: it waits for its disk; it keeps its place and holds nobody up."""
    zone: str | None = None
    """Where its disk is; None: anywhere."""
    user_id: int = 0
    priority: int = 0
    """Set by an operator; higher goes first."""
    avoids: str | None = None
    """Node where Kubernetes found no room for it: taken only when no other fits."""

    @property
    def order(self) -> tuple[int, datetime, UUID]:
        """Place in the line."""
        return -self.priority, self.submitted_at, self.job_id


class Hold(msgspec.Struct, frozen=True, kw_only=True):
    """GPUs that a job holds on a node."""

    node: str
    gpu_count: int
    user_id: int = 0
    ends_at: datetime | None
    """When at the latest they come free; None: nobody knows."""


class Terms(msgspec.Struct, frozen=True, kw_only=True):
    """What the operators decide."""

    most_gpus_per_user: int | None = None
    """GPUs that one user may hold at once; None: no limit."""
    preparation: timedelta = timedelta(hours=1)
    """From the lease to the start of the time box at most."""
    release: timedelta = timedelta(minutes=1)
    """From the end of the time box to the release of the GPUs, as a rule."""

    def latest_end(self, now: datetime, duration: timedelta) -> datetime:
        """When a lease granted now comes back at the latest, unless its job is extended."""
        return now + self.preparation + duration + self.release


class Placement(msgspec.Struct, frozen=True, kw_only=True):
    job_id: UUID
    node: str
    gpu_indexes: tuple[int, ...]
    backfilled: bool = False
    """It went ahead of a job that could not start."""


def place(
    nodes: Iterable[Node], line: Iterable[Waiting], *, holds: Iterable[Hold], now: datetime, terms: Terms
) -> list[Placement]:
    """Leases to make now, in the order of the line.

    The first job of a type that fits nowhere is the head: from it on, only jobs that cannot delay it start. Three
    kinds of jobs hold up nobody: those that wait for their disk, those whose users hold as many GPUs as they may, and
    those that could not start on any node there is, were it empty and well: else a broken GPU would close the line.
    """
    held = list(holds)
    users = Counter[int]()
    for hold in held:
        users[hold.user_id] += hold.gpu_count
    fleets = by_type(nodes)
    waiting: dict[str, list[Waiting]] = {}
    for job in sorted(line, key=lambda one: one.order):
        waiting.setdefault(job.gpu_type, []).append(job)
    # users' limits go over all types: the order of the types decides nothing else
    return [
        placement
        for gpu_type in sorted(waiting.keys() & fleets.keys())
        for placement in Line(fleets[gpu_type], held, users, now, terms).place(waiting[gpu_type])
    ]


class Line:
    """One round over the line of one GPU type.

    Args:
        fleet: Its nodes.
        holds: Of all jobs on all nodes.
        users: GPUs that each user holds, of all types; counts what is placed.
        now: Time of the round.
        terms: The operators'.
    """

    def __init__(
        self, fleet: Sequence[Node], holds: Iterable[Hold], users: Counter[int], now: datetime, terms: Terms
    ) -> None:
        self._nodes = {node.name: node for node in fleet}
        self._sizes = Sizes(fleet)
        self._holds = holds
        self._users = users
        self._now = now
        self._terms = terms
        self.pool = Pool(fleet)
        self._indexes: dict[str, list[int]] = {}
        self.head: Waiting | None = None
        self.reservation: Reservation | None = None
        self._placed: dict[str, list[Release]] = {}

    def place(self, jobs: Iterable[Waiting]) -> list[Placement]:
        """Leases for these jobs, which come in their order."""
        placements = []
        for job in jobs:
            if not job.ready or not self._sizes.hold(job.gpu_count, job.zone) or self.beyond_limit(job):
                continue
            node = self.find(job)
            if node is not None:
                placements.append(self._take(job, node))
            elif self.head is None:
                self.head = job
                self.reservation = reserve(self.pool, self.releases(), job.gpu_count, job.zone)
        return placements

    def beyond_limit(self, job: Waiting) -> bool:
        """Whether its user would hold more GPUs than one may."""
        most = self._terms.most_gpus_per_user
        return most is not None and self._users[job.user_id] + job.gpu_count > most

    def find(self, job: Waiting) -> str | None:
        """Where the job may start now without delaying the head; None: nowhere."""
        node = self._find(job, (job.avoids,)) if job.avoids else None
        return node or self._find(job, ())

    def releases(self) -> Mapping[str, Sequence[Release]]:
        """Ends of what is held on each node of the type."""
        found = {name: list(placed) for name, placed in self._placed.items()}
        for hold in self._holds:
            if hold.node in self._nodes:
                found.setdefault(hold.node, []).append((hold.ends_at, hold.gpu_count))
        return found

    def _find(self, job: Waiting, avoided: tuple[str, ...]) -> str | None:
        kept = self.reservation
        if kept is None:
            return self.pool.fullest(job.gpu_count, job.zone, avoided)
        elsewhere = self.pool.fullest(job.gpu_count, job.zone, (*avoided, kept.node))
        if kept.node in avoided or not self._may_use_reserved(job, kept):
            return elsewhere
        return min(filter(None, (elsewhere, kept.node)), key=lambda name: (self.pool.free[name], name))

    def _may_use_reserved(self, job: Waiting, kept: Reservation) -> bool:
        fits = self.pool.free[kept.node] >= job.gpu_count and in_zone(self._nodes[kept.node], job.zone)
        return fits and kept.admits(job.gpu_count, self._terms.latest_end(self._now, job.duration))

    def _take(self, job: Waiting, name: str) -> Placement:
        ends_at = self._terms.latest_end(self._now, job.duration)
        self.pool.take(name, job.gpu_count)
        self._users[job.user_id] += job.gpu_count
        self._placed.setdefault(name, []).append((ends_at, job.gpu_count))
        if self.reservation is not None and self.reservation.node == name:
            self.reservation.use(job.gpu_count, ends_at)
        if name not in self._indexes:
            self._indexes[name] = list(reversed(self._nodes[name].free_indexes(self._nodes[name].gpus)))
        chosen = tuple(self._indexes[name].pop() for _ in range(job.gpu_count))
        return Placement(job_id=job.job_id, node=name, gpu_indexes=chosen, backfilled=self.head is not None)
