"""When waiting jobs will start: the line is played through many times, each time with other lengths of the jobs.

The lengths are drawn from those of jobs that have ended (a running job's given that it still runs), stratified: over
the scenarios each job gets every part of the distribution once, in an order of its own. So an estimate is the same
whenever it is made from the same facts. The play is first come first served without backfill; what that and jobs
still to come change is measured, and corrects the p90 (`Correction`).
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
from services.capacity.domain.free_gpus import Pool, Sizes
from services.capacity.domain.lease import Lease, Runs
from services.capacity.domain.placement import Terms, Waiting

MOST_JOBS = 300
"""Jobs of one type that are looked at; when those behind them start nobody can know."""
SCENARIOS = 31
"""A prime, so that every step through the parts of a distribution reaches all of them."""
_P50 = SCENARIOS // 2
_P90 = -(-9 * SCENARIOS // 10) - 1


class Estimate(msgspec.Struct, frozen=True, kw_only=True):
    """When a job starts: before `p50` with one chance in two, before `p90` with nine in ten."""

    p50: datetime
    p90: datetime


class Correction(msgspec.Struct, frozen=True, kw_only=True):
    """By what the wait until the p90 is multiplied, so that nine of ten jobs start before it.

    Learned from each job that starts: adaptive conformal inference (Gibbs and Candès, NeurIPS 2021), in logarithms.
    """

    factor: float = 1.0

    def learn(self, *, in_time: bool) -> "Correction":
        """After a job started, before its p90 or not."""
        step = _GAIN * (_AIM - in_time)
        return Correction(factor=exp(min(max(log(self.factor) + step, -_FURTHEST), _FURTHEST)))


_AIM = 0.9
_GAIN = 0.05
_FURTHEST = 2.0


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """What estimates are made of, besides the line."""

    nodes: Sequence[Node]
    """Of any types."""
    leases: Sequence[Lease]
    """On them."""
    runs: Runs
    """What is known of jobs that have ended."""
    corrections: Mapping[str, Correction] = {}
    """By GPU type; none for those of which nothing was learned yet."""


def estimate_starts(
    facts: Facts, line: Iterable[Waiting], *, now: datetime, terms: Terms
) -> dict[UUID, Estimate | None]:
    """The start of each job in line.

    None: it waits for something else than the end of jobs (its disk, a node, a foreign pod), or too many are ahead.

    Args:
        facts: Of this moment.
        line: In any order.
        now: Time of the estimate.
        terms: The operators'.
    """
    starts: dict[UUID, Estimate | None] = {}
    types: dict[str, list[Waiting]] = {}
    for job in sorted(line, key=lambda one: one.order):
        starts[job.job_id] = None
        types.setdefault(job.gpu_type, []).append(job)
    for gpu_type, waiting in types.items():
        stage = _Stage(gpu_type, facts, now, terms)
        jobs = [job for job in waiting if stage.holds(job)][:MOST_JOBS]
        plays = [play.starts(jobs) for play in stage.plays()] if jobs else []
        starts |= {job.job_id: stage.summary([play.get(job.job_id) for play in plays]) for job in jobs}
    return starts


def estimate_each(
    facts: Facts, ahead: Iterable[Waiting], choices: Sequence[Waiting], *, now: datetime, terms: Terms
) -> list[Estimate | None]:
    """The start of each of these jobs, each as if it alone stood behind those ahead; None as in `estimate_starts`.

    Costs hardly more than one estimate: what is ahead of them is played once for all.

    Args:
        facts: Of this moment.
        ahead: Who stands in line before them, in any order; at most MOST_JOBS.
        choices: Of one GPU type, at least one.
        now: Time of the estimate.
        terms: The operators'.
    """
    stage = _Stage(choices[0].gpu_type, facts, now, terms)
    jobs = [job for job in sorted(ahead, key=lambda one: one.order) if stage.holds(job)]
    known = [job for job in choices if stage.holds(job)]
    plays = [play.chances(jobs, known) for play in stage.plays()] if known else []
    found = {job.gpu_count: stage.summary([play[index] for play in plays]) for index, job in enumerate(known)}
    return [found.get(job.gpu_count) for job in choices]


class _Stage:
    """What all scenarios of one GPU type have in common."""

    def __init__(self, gpu_type: str, facts: Facts, now: datetime, terms: Terms) -> None:
        fleet = [node for node in facts.nodes if node.gpu_type == gpu_type]
        self._sizes = Sizes([_without_foreign(node) for node in fleet if node.usable])
        self._pool = Pool(fleet)
        self._facts, self._now, self._terms = facts, now, terms
        self._correction = facts.corrections.get(gpu_type, Correction())

    def holds(self, job: Waiting) -> bool:
        """Whether the end of jobs could give it what it waits for."""
        return job.ready and self._sizes.hold(job.gpu_count, job.zone)

    def plays(self) -> Iterator["_Play"]:
        """One for each scenario."""
        held = Counter[int]()
        fates: list[tuple[Lease, list[float]]] = []
        for lease in self._facts.leases:
            held[lease.user_id] += lease.gpu_count
            if lease.node in self._pool.nodes:
                chances = [_chance(lease.job_id, scenario) for scenario in range(SCENARIOS)]
                fates.append((lease, lease.likely_ends(self._now, self._facts.runs, chances)))
        for scenario in range(SCENARIOS):
            ends = [(fate[scenario], lease.node, lease.gpu_count, lease.user_id) for lease, fate in fates]
            yield _Play(
                self._pool.copy(), ends, held.copy(), scenario=scenario, runs=self._facts.runs,
                most=self._terms.most_gpus_per_user,
            )  # fmt: skip

    def summary(self, starts: Iterable[float | None]) -> Estimate | None:
        """Of a job's starts in all scenarios."""
        known = sorted(start for start in starts if start is not None)
        if len(known) <= _P90:
            return None
        p50, p90 = known[_P50], known[_P90]
        corrected = max(p50, p90 * self._correction.factor)
        return Estimate(p50=self._now + timedelta(seconds=p50), p90=self._now + timedelta(seconds=corrected))


def _without_foreign(node: Node) -> Node:
    # when foreign pods go, nobody can know: who needs their GPUs waits for something else than the end of jobs
    return msgspec.structs.replace(node, gpus=node.gpus - node.foreign - node.withheld)


def _chance(job_id: UUID, scenario: int) -> float:
    step, offset = 1 + job_id.int % (SCENARIOS - 1), job_id.int // SCENARIOS % SCENARIOS
    return ((step * scenario + offset) % SCENARIOS + 0.5) / SCENARIOS


class _Play:
    """One scenario of one GPU type; its time is in seconds from now.

    Args:
        pool: What is free; changes.
        ends: Of what runs: time, node, GPUs and user.
        held: GPUs that each user holds, of all types; changes.
        scenario: Its number.
        runs: What is known of jobs that have ended.
        most: GPUs that one user may hold; None: no limit.
    """

    def __init__(
        self, pool: Pool, ends: list[tuple[float, str, int, int]], held: Counter[int], *, scenario: int, runs: Runs,
        most: int | None,
    ) -> None:  # fmt: skip
        self._pool, self._ends, self._held = pool, ends, held
        self._scenario, self._runs, self._most = scenario, runs, most
        self._time = 0.0
        heapify(ends)
        # a device failed under a lease: what comes back pays that debt first
        self._debts = {node.name: node.held - node.gpus for node in pool.nodes.values() if node.held > node.gpus}
        self._limited: list[Waiting] = []
        self._starts: dict[UUID, float] = {}

    def starts(self, jobs: Iterable[Waiting]) -> Mapping[UUID, float]:
        """When each starts; those that are not in it never do."""
        self._play(jobs)
        self._wait_until(lambda: not self._limited)
        return self._starts

    def chances(self, ahead: Iterable[Waiting], choices: Sequence[Waiting]) -> Sequence[float | None]:
        """When each of these could start behind those ahead; None: never."""
        self._play(ahead)
        found: list[float | None] = [None] * len(choices)

        def all_could() -> bool:
            for index, job in enumerate(choices):
                if found[index] is None and self._could(job):
                    found[index] = self._time
            return None not in found

        self._wait_until(all_could)
        return found

    def _play(self, jobs: Iterable[Waiting]) -> None:
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
            self._pool.give(node, gpus - debt)
            self._held[user] -= gpus
            if self._limited:
                self._limited = [job for job in self._limited if self._beyond_limit(job) or not self._start(job)]

    def _could(self, job: Waiting) -> bool:
        return not self._beyond_limit(job) and self._pool.fullest(job.gpu_count, job.zone) is not None

    def _start(self, job: Waiting) -> bool:
        node = self._pool.fullest(job.gpu_count, job.zone)
        if node is None:
            return False
        self._pool.take(node, job.gpu_count)
        self._held[job.user_id] += job.gpu_count
        self._starts[job.job_id] = self._time
        chance = _chance(job.job_id, self._scenario)
        length = self._runs.preparation(chance) + self._runs.length(chance, job.duration.total_seconds())
        heappush(self._ends, (self._time + length, node, job.gpu_count, job.user_id))
        return True

    def _beyond_limit(self, job: Waiting) -> bool:
        return self._most is not None and self._held[job.user_id] + job.gpu_count > self._most
