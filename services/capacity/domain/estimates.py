"""When waiting jobs will start, by simulation: the queue is run many times, each time with other lengths of the jobs.

The lengths are drawn from those of jobs that have ended (for a running job, of those that ran at least as long). The
draws are stratified: over all scenarios each job gets every quantile of the distribution once, in an order of its own.
So equal facts give equal estimates. A scenario starts jobs in the order of the queue, without backfill. How much
backfill, and jobs still to be submitted, change is measured afterwards and corrects the p90 (`Correction`).
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from functools import partial
from heapq import heapify, heappop, heappush
from math import exp, log
from uuid import UUID

import msgspec

from services.capacity.domain.fleet import Node
from services.capacity.domain.free_gpus import FreeGpus, NodeSizes
from services.capacity.domain.lease import Lease, Runs
from services.capacity.domain.placement import SchedulingPolicy, WaitingJob

MOST_JOBS = 300
"""Jobs of one GPU type that get an estimate; nobody can know when those behind them start."""
SCENARIOS = 31
"""A prime, so that every step through the quantiles of a distribution reaches all of them."""
_P50 = SCENARIOS // 2
_P90 = -(-9 * SCENARIOS // 10) - 1


class Estimate(msgspec.Struct, frozen=True, kw_only=True):
    """A job starts before `p50` with a probability of one in two, before `p90` with nine in ten."""

    p50: datetime
    p90: datetime


class Correction(msgspec.Struct, frozen=True, kw_only=True):
    """The wait until the p90 is multiplied by this factor, so that nine of ten jobs start before it.

    It is learned from each job that starts, by adaptive conformal inference (Gibbs and Candès, NeurIPS 2021) on its
    logarithm.
    """

    factor: float = 1.0

    def learn(self, *, in_time: bool) -> "Correction":
        """The correction after one more job started, in time for its p90 or not."""
        step = _GAIN * (_AIM - in_time)
        return Correction(factor=exp(min(max(log(self.factor) + step, -_FURTHEST), _FURTHEST)))


_AIM = 0.9
_GAIN = 0.05
_FURTHEST = 2.0


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """What estimates are made from, besides the queue."""

    nodes: Sequence[Node]
    """Of any types."""
    leases: Sequence[Lease]
    """On them."""
    runs: Runs
    """How jobs that have ended ran."""
    corrections: Mapping[str, Correction] = {}
    """By GPU type; there is none for a type of which nothing was learned yet."""


def estimate_starts(
    facts: Facts, queue: Iterable[WaitingJob], *, now: datetime, policy: SchedulingPolicy
) -> dict[UUID, Estimate | None]:
    """When each job of the queue starts.

    None for a job that waits for something else than the end of jobs (its disk, a node, a foreign pod), and for one
    that has too many jobs ahead of it.

    Args:
        facts: Of this moment.
        queue: In any order.
        now: Time of the estimate.
        policy: The operators'.
    """
    starts: dict[UUID, Estimate | None] = {}
    types: dict[str, list[WaitingJob]] = {}
    for job in sorted(queue, key=lambda one: one.order):
        starts[job.job_id] = None
        types.setdefault(job.gpu_type, []).append(job)
    for gpu_type, waiting in types.items():
        simulation = _Simulation(gpu_type, facts, now, policy)
        jobs = [job for job in waiting if simulation.fits(job)][:MOST_JOBS]
        runs = [scenario.starts(jobs) for scenario in simulation.scenarios()] if jobs else []
        starts |= {job.job_id: simulation.estimate([run.get(job.job_id) for run in runs]) for job in jobs}
    return starts


def estimate_each(
    facts: Facts, ahead: Iterable[WaitingJob], choices: Sequence[WaitingJob], *, now: datetime, policy: SchedulingPolicy
) -> list[Estimate | None]:
    """When each of these jobs starts if it alone stands behind those ahead; None as in `estimate_starts`.

    Costs hardly more than one estimate: the jobs ahead are simulated once for all of them.

    Args:
        facts: Of this moment.
        ahead: The jobs before them in the queue, in any order; at most MOST_JOBS.
        choices: At least one, all of one GPU type.
        now: Time of the estimate.
        policy: The operators'.
    """
    simulation = _Simulation(choices[0].gpu_type, facts, now, policy)
    jobs = [job for job in sorted(ahead, key=lambda one: one.order) if simulation.fits(job)]
    known = [job for job in choices if simulation.fits(job)]
    runs = [scenario.starts_behind(jobs, known) for scenario in simulation.scenarios()] if known else []
    found = iter([simulation.estimate([run[index] for run in runs]) for index in range(len(known))])
    return [next(found) if simulation.fits(job) else None for job in choices]


class _Simulation:
    """What all scenarios of one GPU type have in common."""

    def __init__(self, gpu_type: str, facts: Facts, now: datetime, policy: SchedulingPolicy) -> None:
        fleet = [node for node in facts.nodes if node.gpu_type == gpu_type]
        self._sizes = NodeSizes([_without_foreign(node) for node in fleet if node.usable])
        self._free_gpus = FreeGpus(fleet)
        self._facts, self._now, self._policy = facts, now, policy
        self._correction = facts.corrections.get(gpu_type, Correction())

    def fits(self, job: WaitingJob) -> bool:
        """Whether jobs that end could give it what it waits for."""
        return job.ready and self._sizes.fits(job.gpu_count, job.zone)

    def scenarios(self) -> Iterator["_Scenario"]:
        """One for each scenario."""
        held = Counter[int]()
        leases: list[tuple[Lease, list[float]]] = []
        for lease in self._facts.leases:
            held[lease.user_id] += lease.gpu_count
            if lease.node in self._free_gpus.nodes:
                quantiles = [_quantile(lease.job_id, number) for number in range(SCENARIOS)]
                leases.append((lease, lease.likely_ends(self._now, self._facts.runs, quantiles)))
        for number in range(SCENARIOS):
            yield _Scenario(
                self._free_gpus.copy(),
                [(ends[number], lease.node, lease.gpu_count, lease.user_id) for lease, ends in leases],
                held.copy(),
                number=number,
                runs=self._facts.runs,
                most=self._policy.most_gpus_per_user,
            )

    def estimate(self, starts: Iterable[float | None]) -> Estimate | None:
        """From a job's starts in all scenarios."""
        known = sorted(start for start in starts if start is not None)
        if len(known) <= _P90:
            return None
        p50, p90 = known[_P50], known[_P90]
        corrected = max(p50, p90 * self._correction.factor)
        return Estimate(p50=self._now + timedelta(seconds=p50), p90=self._now + timedelta(seconds=corrected))


def _without_foreign(node: Node) -> Node:
    # nobody can know when foreign pods go: a job that needs their GPUs waits for something else than the end of jobs
    return msgspec.structs.replace(node, gpus=node.gpus - node.foreign - node.withheld)


def _quantile(job_id: UUID, scenario: int) -> float:
    step, offset = 1 + job_id.int % (SCENARIOS - 1), job_id.int // SCENARIOS % SCENARIOS
    return ((step * scenario + offset) % SCENARIOS + 0.5) / SCENARIOS


class _Scenario:
    """One scenario of one GPU type; its time is in seconds from now.

    Args:
        free_gpus: What is free at the start; is changed.
        ends: When running jobs end: time, node, GPUs and user; is changed.
        held: GPUs of all types that each user holds at the start; is changed.
        number: Of the scenario.
        runs: How jobs that have ended ran.
        most: GPUs that one user may hold; None: no limit.
    """

    def __init__(
        self,
        free_gpus: FreeGpus,
        ends: list[tuple[float, str, int, int]],
        held: Counter[int],
        *,
        number: int,
        runs: Runs,
        most: int | None,
    ) -> None:
        self._free_gpus, self._ends, self._held = free_gpus, ends, held
        self._number, self._runs, self._most = number, runs, most
        self._time = 0.0
        heapify(ends)
        # more are held than are allocatable when a device failed under a lease: that many must come free first
        self._debts = {node.name: node.held - node.gpus for node in free_gpus.nodes.values() if node.held > node.gpus}
        self._limited: list[WaitingJob] = []
        self._starts: dict[UUID, float] = {}

    def starts(self, jobs: Iterable[WaitingJob]) -> Mapping[UUID, float]:
        """When each starts; a job that is not in the answer never does."""
        self._run(jobs)
        self._wait_until(lambda: not self._limited)
        return self._starts

    def starts_behind(self, ahead: Iterable[WaitingJob], choices: Sequence[WaitingJob]) -> Sequence[float | None]:
        """When each of the choices could start behind those ahead; None: never."""
        self._run(ahead)
        found: list[float | None] = [None] * len(choices)

        def all_could() -> bool:
            for index, job in enumerate(choices):
                if found[index] is None and self._could(job):
                    found[index] = self._time
            return None not in found

        self._wait_until(all_could)
        return found

    def _run(self, jobs: Iterable[WaitingJob]) -> None:
        for job in jobs:
            if self._beyond_limit(job):
                self._limited.append(job)
            else:
                self._wait_until(partial(self._start, job))

    def _wait_until(self, done: Callable[[], bool]) -> None:
        while not done() and self._ends:
            self._time, node, gpus, user = heappop(self._ends)
            debt = min(gpus, self._debts.get(node, 0))
            if debt:
                self._debts[node] -= debt
            self._free_gpus.give(node, gpus - debt)
            self._held[user] -= gpus
            if self._limited:
                self._limited = [job for job in self._limited if self._beyond_limit(job) or not self._start(job)]

    def _could(self, job: WaitingJob) -> bool:
        return not self._beyond_limit(job) and self._free_gpus.fullest(job.gpu_count, job.zone) is not None

    def _start(self, job: WaitingJob) -> bool:
        node = self._free_gpus.fullest(job.gpu_count, job.zone)
        if node is None:
            return False
        self._free_gpus.take(node, job.gpu_count)
        self._held[job.user_id] += job.gpu_count
        self._starts[job.job_id] = self._time
        quantile = _quantile(job.job_id, self._number)
        length = self._runs.preparation(quantile) + self._runs.length(quantile, job.duration.total_seconds())
        heappush(self._ends, (self._time + length, node, job.gpu_count, job.user_id))
        return True

    def _beyond_limit(self, job: WaitingJob) -> bool:
        return self._most is not None and self._held[job.user_id] + job.gpu_count > self._most
