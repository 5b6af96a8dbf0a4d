"""When waiting jobs will start: the line is played through many times, each time with other lengths of the jobs.

The lengths are drawn from those of jobs that have ended (a running job's given that it still runs), stratified: over
the scenarios each job gets every part of the distribution once, in an order of its own. So an estimate is the same
whenever it is made from the same facts. The play is first come first served without backfill; what that and jobs
still to come change is measured, and corrects the p90 (`Correction`).
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from functools import partial
from heapq import heapify, heappop, heappush
from math import exp, log
from uuid import UUID

import msgspec

from services.capacity.domain.fleet import Node, by_type
from services.capacity.domain.lease import Lease, Runs
from services.capacity.domain.placement import Terms, Waiting
from services.capacity.domain.pool import Pool, Sizes

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


def estimate_starts(
    nodes: Iterable[Node],
    leases: Sequence[Lease],
    line: Iterable[Waiting],
    *,
    runs: Runs,
    now: datetime,
    terms: Terms,
    corrections: Mapping[str, Correction] | None = None,
) -> dict[UUID, Estimate | None]:
    """The start of each job in line.

    None: it waits for something else than the end of jobs (its disk, a node, a foreign pod), or too many are ahead.

    Args:
        nodes: Of any types.
        leases: On them.
        line: In any order.
        runs: What is known of jobs that have ended.
        now: Time of the estimate.
        terms: The operators'.
        corrections: By GPU type; None: none learned yet.
    """
    starts: dict[UUID, Estimate | None] = {}
    fleets = by_type(nodes)
    types: dict[str, list[Waiting]] = {}
    for job in sorted(line, key=lambda one: one.order):
        starts[job.job_id] = None
        types.setdefault(job.gpu_type, []).append(job)
    for gpu_type in types.keys() & fleets.keys():
        sizes = Sizes([_without_foreign(node) for node in fleets[gpu_type] if node.usable])
        jobs = [job for job in types[gpu_type] if job.ready and sizes.hold(job.gpu_count, job.zone)][:MOST_JOBS]
        correction = (corrections or {}).get(gpu_type, Correction())
        pool = Pool(fleets[gpu_type])
        plays = [
            _Play(pool.copy(), scenario, leases, runs=runs, terms=terms, now=now).starts(jobs)
            for scenario in range(SCENARIOS)
        ]
        starts |= {job.job_id: _summary([play.get(job.job_id) for play in plays], now, correction) for job in jobs}
    return starts


def _without_foreign(node: Node) -> Node:
    # when foreign pods go, nobody can know: who needs their GPUs waits for something else than the end of jobs
    return msgspec.structs.replace(node, gpus=node.gpus - node.foreign - node.withheld)


def _summary(starts: Sequence[datetime | None], now: datetime, correction: Correction) -> Estimate | None:
    known = sorted(start for start in starts if start is not None)
    if len(known) <= _P90:
        return None
    p50, p90 = known[_P50], known[_P90]
    return Estimate(p50=p50, p90=max(p50, now + (p90 - now) * correction.factor))


def _chance(job_id: UUID, scenario: int) -> float:
    step, offset = 1 + job_id.int % (SCENARIOS - 1), job_id.int // SCENARIOS % SCENARIOS
    return ((step * scenario + offset) % SCENARIOS + 0.5) / SCENARIOS


class _Play:
    """One scenario of one GPU type."""

    def __init__(
        self, pool: Pool, scenario: int, leases: Iterable[Lease], *, runs: Runs, terms: Terms, now: datetime
    ) -> None:
        self._pool = pool
        self._runs = runs
        self._most = terms.most_gpus_per_user
        self._time = now
        self._scenario = scenario
        self._held = Counter[int]()
        self._ends: list[tuple[datetime, str, int, int]] = []
        for lease in leases:
            self._held[lease.user_id] += lease.gpu_count
            if lease.node in pool.nodes:
                end = lease.likely_end(now, runs, _chance(lease.job_id, scenario))
                self._ends.append((end, lease.node, lease.gpu_count, lease.user_id))
        heapify(self._ends)
        # a device failed under a lease: what comes back pays that debt first
        self._debts = {node.name: node.held - node.gpus for node in pool.nodes.values() if node.held > node.gpus}
        self._limited: list[Waiting] = []
        self._starts: dict[UUID, datetime] = {}

    def starts(self, jobs: Iterable[Waiting]) -> Mapping[UUID, datetime]:
        """When each starts; those that are not in it never do."""
        for job in jobs:
            if self._beyond_limit(job):
                self._limited.append(job)
            else:
                self._wait_until(partial(self._start, job))
        self._wait_until(lambda: not self._limited)
        return self._starts

    def _wait_until(self, done: Callable[[], bool]) -> None:
        while not done() and self._ends:
            self._time, node, gpus, user = heappop(self._ends)
            debt = min(gpus, self._debts.get(node, 0))
            if debt:
                self._debts[node] -= debt
            self._pool.give(node, gpus - debt)
            self._held[user] -= gpus
            self._limited = [job for job in self._limited if self._beyond_limit(job) or not self._start(job)]

    def _start(self, job: Waiting) -> bool:
        node = self._pool.fullest(job.gpu_count, job.zone)
        if node is None:
            return False
        self._pool.take(node, job.gpu_count)
        self._held[job.user_id] += job.gpu_count
        self._starts[job.job_id] = self._time
        chance = _chance(job.job_id, self._scenario)
        ran = self._runs.length(chance, job.duration) or job.duration
        end = self._time + self._runs.preparation(chance) + ran
        heappush(self._ends, (end, node, job.gpu_count, job.user_id))
        return True

    def _beyond_limit(self, job: Waiting) -> bool:
        return self._most is not None and self._held[job.user_id] + job.gpu_count > self._most
