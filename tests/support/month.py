"""A lab's queue, played on the rules of capacity alone: no database, no clock, one seed."""

import heapq
import math
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from uuid import UUID

from msgspec import structs

from services.capacity.domain.estimates import Correction, Facts, estimate_starts
from services.capacity.domain.fleet import Node
from services.capacity.domain.lease import Lease, Runs
from services.capacity.domain.placement import Placement, SchedulingPolicy, WaitingJob, schedule
from shared.contracts.jobs import JobStatus

START = datetime(2026, 1, 1, tzinfo=UTC)
GPUS = 8
_TELLING = timedelta(minutes=5)
_SIZES, _SIZE_WEIGHTS = (1, 2, 4, 8), (45, 20, 15, 20)
_KNOWN_RUNS = 2000


@dataclass(frozen=True)
class Lab:
    """What is played."""

    seed: int = 1
    days: int = 30
    users: int = 200
    nodes: int = 64
    load: float = 0.92
    """GPU hours that jobs will use, of those there are."""
    policy: SchedulingPolicy = field(default_factory=SchedulingPolicy)


@dataclass(frozen=True)
class Arrival:
    """A job of the trace: what its user asks for, and what fate makes of it."""

    job: WaitingJob
    prepares: timedelta
    runs: timedelta


@dataclass
class Report:
    """What came of it."""

    utilisation: float = 0.0
    """GPU time held by jobs, of all until the last arrival."""
    waits: list[float] = field(default_factory=list)
    """Hours, of every job that has started."""
    big_waits: list[float] = field(default_factory=list)
    """Of those, of jobs that want a whole node."""
    in_time: list[bool] = field(default_factory=list)
    """Whether each job that was told a p90 started before it."""
    backfilled: int = 0

    @property
    def mean_wait(self) -> float:
        """Hours."""
        return sum(self.waits) / len(self.waits)

    def wait_quantile(self, quantile: float) -> float:
        """Hours."""
        return sorted(self.waits)[int(quantile * len(self.waits))]

    @property
    def share_in_time(self) -> float:
        """Of the jobs that were told a p90."""
        return sum(self.in_time) / len(self.in_time)


def trace(lab: Lab) -> Iterator[Arrival]:
    """Jobs in the order of their submission: by day and working hours, with a heavy tail, and ending early."""
    chance = random.Random(lab.seed)
    activity = [chance.paretovariate(1.2) for _ in range(lab.users)]
    shapes = [(chance.gauss(0, 0.5), chance.choice((0.35, 0.6, 0.85))) for _ in range(lab.users)]
    hours, used, number = 0.0, 0.0, 0
    wanted = lab.load * lab.nodes * GPUS
    while hours < 24 * lab.days:
        arrival = _arrival(chance, hours, activity, shapes)
        number += 1
        used += arrival.job.gpu_count * (arrival.runs + arrival.prepares) / timedelta(hours=1)
        yield arrival
        # the next comes when the queue can bear it on average: the load is what was asked for, whatever the dice say
        pace = 1.5 if 8 <= hours % 24 < 20 else 0.5
        hours += chance.expovariate(1.0) * used / (number * wanted) / pace


def _arrival(chance: random.Random, hours: float, activity: list[float], shapes: list[tuple[float, float]]) -> Arrival:
    user = chance.choices(range(len(activity)), activity)[0]
    shift, thrift = shapes[user]
    asked = min(max(math.exp(chance.gauss(math.log(2.5) + shift, 1.2)), 5 / 60), 72)
    fate = chance.random()
    share = chance.uniform(0.005, 0.1) if fate < 0.2 else 1.0 if fate > thrift else chance.uniform(0.1, 1.0)
    job = WaitingJob(
        job_id=UUID(int=chance.getrandbits(128)),
        gpu_type="h100",
        gpu_count=chance.choices(_SIZES, _SIZE_WEIGHTS)[0],
        submitted_at=START + timedelta(hours=hours),
        duration=timedelta(hours=asked),
        ready=True,
        user_id=user,
    )
    return Arrival(job, timedelta(seconds=chance.uniform(20, 240)), share * job.duration)


class Month:
    """The play of one trace.

    Args:
        lab: What is played.
        backfill: False: plain first come first served.
    """

    def __init__(self, lab: Lab, *, backfill: bool = True) -> None:
        self._lab = lab
        self._backfill = backfill
        self._nodes = {
            f"n{number:03}": Node(name=f"n{number:03}", gpu_type="h100", gpus=GPUS, ready=True, schedulable=True)
            for number in range(lab.nodes)
        }
        self._queue: dict[UUID, Arrival] = {}
        self._running: dict[UUID, tuple[Lease, Placement, Arrival]] = {}
        self._events: list[tuple[datetime, int, UUID]] = []
        self._told: dict[UUID, datetime] = {}
        self._told_at = START - _TELLING
        self._runs: list[tuple[float, float]] = []
        self._correction = Correction()
        self._held_hours = 0.0
        self.report = Report()

    def scenario_(self) -> Report:
        """Play it to the last arrival; who waits then is left out."""
        last = START
        for arrival in trace(self._lab):
            self._run_until(arrival.job.submitted_at)
            last = arrival.job.submitted_at
            self._queue[arrival.job.job_id] = arrival
            self._round(last)
        held = self._held_hours + sum(
            lease.gpu_count * (last - lease.granted_at) / timedelta(hours=1) for lease, _, _ in self._running.values()
        )
        self.report.utilisation = held / (self._lab.nodes * GPUS * ((last - START) / timedelta(hours=1)))
        return self.report

    def _run_until(self, time: datetime) -> None:
        while self._events and self._events[0][0] <= time:
            now, kind, job_id = heapq.heappop(self._events)
            if kind == 0:
                lease, placement, arrival = self._running[job_id]
                started = structs.replace(lease, started_at=now, expires_at=now + lease.duration)
                self._running[job_id] = (started, placement, arrival)
            else:
                self._end(job_id, now)
                self._round(now)

    def _round(self, now: datetime) -> None:
        policy = self._lab.policy
        allocations = [lease.allocation(now, policy) for lease, _, _ in self._running.values()]
        queue = [arrival.job for arrival in self._queue.values()]
        for placement in schedule(self._nodes.values(), queue, allocations=allocations, now=now, policy=policy):
            if self._backfill or not placement.backfilled:
                self._start(placement, now)
        if self._backfill and now - self._told_at >= _TELLING and self._queue.keys() - self._told.keys():
            self._told_at = now
            self._announce(now)

    def _start(self, placement: Placement, now: datetime) -> None:
        arrival = self._queue.pop(placement.job_id)
        job = arrival.job
        self._occupy(placement, taken=True)
        lease = Lease(
            job_id=job.job_id,
            node=placement.node,
            gpu_count=job.gpu_count,
            user_id=job.user_id,
            duration=job.duration,
            granted_at=now,
            started_at=None,
            expires_at=None,
            cancelling=False,
            status=JobStatus.PREPARING,
        )
        self._running[job.job_id] = (lease, placement, arrival)
        begins = now + arrival.prepares
        heapq.heappush(self._events, (begins, 0, job.job_id))
        heapq.heappush(self._events, (begins + arrival.runs, 1, job.job_id))
        self._count(job, placement, now)

    def _count(self, job: WaitingJob, placement: Placement, now: datetime) -> None:
        wait = (now - job.submitted_at) / timedelta(hours=1)
        self.report.waits.append(wait)
        self.report.backfilled += placement.backfilled
        if job.gpu_count == GPUS:
            self.report.big_waits.append(wait)
        p90 = self._told.get(job.job_id)
        if p90 is not None:
            self.report.in_time.append(now <= p90)
            self._correction = self._correction.learn(in_time=now <= p90)

    def _end(self, job_id: UUID, now: datetime) -> None:
        lease, placement, arrival = self._running.pop(job_id)
        self._occupy(placement, taken=False)
        self._held_hours += lease.gpu_count * (now - lease.granted_at) / timedelta(hours=1)
        self._runs.append((arrival.runs / lease.duration, arrival.prepares.total_seconds()))
        del self._runs[:-_KNOWN_RUNS]

    def _occupy(self, placement: Placement, *, taken: bool) -> None:
        node = self._nodes[placement.node]
        before, change = set(node.leased), set(placement.gpu_indexes)
        assert change.isdisjoint(before) if taken else change <= before, "a GPU was leased twice"
        after = before | change if taken else before - change
        self._nodes[node.name] = structs.replace(node, leased=tuple(sorted(after)))

    def _announce(self, now: datetime) -> None:
        leases = [lease for lease, _, _ in self._running.values()]
        queue = [arrival.job for arrival in self._queue.values()]
        shares, preparations = zip(*self._runs, strict=True) if self._runs else ((), ())
        facts = Facts(
            nodes=list(self._nodes.values()),
            leases=leases,
            runs=Runs.of(shares, preparations),
            corrections={"h100": self._correction},
        )
        found = estimate_starts(facts, queue, now=now, policy=self._lab.policy)
        for job_id, estimate in found.items():
            if estimate is not None:
                self._told.setdefault(job_id, estimate.p90)
