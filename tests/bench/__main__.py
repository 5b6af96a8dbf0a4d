"""`make bench`: requests per second, latencies and CPU time of reads and writes, each beside others in the same run.

Beside a bare reference, which runs the same SQL and nothing else, and, with BENCH_AGAINST=<commit>, beside the stack of
that commit. Rounds alternate, so that a machine that changes its pace changes all. At last, two replicas beside one.
"""

import os
import statistics
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

import msgspec

from tests.bench.cases import CASES, Case
from tests.bench.cpu import cpu_seconds
from tests.bench.floor import floors, in_words
from tests.bench.latency import LOAD, in_worst
from tests.bench.load import Plan, Result
from tests.bench.replicas import two_replicas
from tests.bench.stopping import end_in_order
from tests.bench.subjects import Subject, Target, checkout, reference_of, stack_of
from tests.support.stack import ROOT

ROUNDS = int(os.environ.get("BENCH_ROUNDS", "3"))
SECONDS = float(os.environ.get("BENCH_SECONDS", "3"))
AGAINST = os.environ.get("BENCH_AGAINST", "")
ONLY = os.environ.get("BENCH_CASES", "")
"""Beginnings of the names of cases, separated by commas; empty: all."""
WAYS = tuple(os.environ.get("BENCH_WAYS", "direct,ingress").split(","))
CONNECTIONS = 16
WARMUP_SECONDS = 0.7
_OF_TWO = ("get job", "submit")
"""Cases that are measured with two replicas too."""
_OF_ONE_ROUND = frozenset({"worst", "measured", "slowest", "pid"})


class Measured(msgspec.Struct, frozen=True, kw_only=True):
    """One subject's figures for one case."""

    load: Result
    cpu_milliseconds: float
    """Of a request, by all processes that the subject has."""


def measure(target: Target, rate: float | None = None) -> Measured:
    """One measurement; the load comes from a process of its own."""
    before = cpu_seconds(target.processes)
    load = run(plan_of(target, rate))
    spent = cpu_seconds(target.processes) - before
    return Measured(load=load, cpu_milliseconds=1000 * spent / max(1, load.requests))


def plan_of(target: Target, rate: float | None) -> Plan:
    """A round of load: at a steady rate, or as much as there are answers (None)."""
    return Plan(
        port=target.port,
        request=target.request,
        connections=CONNECTIONS,
        warmup_seconds=WARMUP_SECONDS,
        seconds=SECONDS,
        rate=rate,
    )


def run(plan: Plan) -> Result:
    """What came of a plan."""
    done = subprocess.run(LOAD, cwd=ROOT, input=msgspec.json.encode(plan), stdout=subprocess.PIPE, check=True)
    return msgspec.json.decode(done.stdout, type=Result)


def median(results: Sequence[Measured]) -> Measured:
    """Median of each figure."""
    figures = [name for name in Result.__struct_fields__ if name not in _OF_ONE_ROUND]
    medians = {name: statistics.median(getattr(one.load, name) for one in results) for name in figures}
    worst = sorted((found for one in results for found in one.load.worst), key=lambda found: -found[1])
    return Measured(
        load=Result(**medians, worst=worst[:5], measured=(0.0, 0.0), slowest=[], pid=0),
        cpu_milliseconds=statistics.median(one.cpu_milliseconds for one in results),
    )


HEAD = (
    f"{'':<20} {'way':<8} {'':<12} {'req/s':>7} {'p50 ms':>7} {'p99 ms':>7} {'CPU ms':>7} {'errors':>7} "
    f"| now to it: {'req/s':>7} {'CPU':>7}"
)


def show(case: Case, way: str, figures: dict[str, Measured]) -> None:
    """A line of each subject; what it is to ours, in requests and in CPU time."""
    ours = figures["now"]
    for name, measured in figures.items():
        load = measured.load
        rate = ours.load.requests_per_second / load.requests_per_second
        cost = ours.cpu_milliseconds / measured.cpu_milliseconds if measured.cpu_milliseconds else 0.0
        ratio = "" if name == "now" else f" | {'':<10} {rate:>7.2f} {cost:>7.2f}"
        print(
            f"{case.name:<20} {way:<8} {name:<12} {load.requests_per_second:>7.0f} {load.p50_milliseconds:>7.2f} "
            f"{load.p99_milliseconds:>7.2f} {measured.cpu_milliseconds:>7.3f} {load.errors:>7.0f}{ratio}",
            flush=True,
        )


def compare(subjects: Sequence[Subject], case: Case, way: str) -> dict[str, Measured]:
    """Every subject's figures, measured in turns."""
    targets = {subject.name: subject.target(case, way) for subject in subjects}
    rounds = [{name: measure(target) for name, target in targets.items()} for _ in range(ROUNDS)]
    return {name: median([one[name] for one in rounds]) for name in targets}


def show_latency(case: Case, way: str, subjects: Sequence[Subject], highest: float) -> None:
    """How long requests take at half of our highest rate, and which took longest, at which second of a round.

    The reference's, at the same rate, show what of it is the machine's.
    """
    targets = {subject.name: subject.target(case, way) for subject in subjects}
    rounds = [{name: measure(target, rate=highest / 2) for name, target in targets.items()} for _ in range(ROUNDS)]
    for name in targets:
        load = median([one[name] for one in rounds]).load
        worst = ", ".join(f"{took:.0f} ms at {at:.1f} s" for at, took in load.worst)
        print(
            f"{case.name:<20} {way:<8} {f'{name} at half':<12} {load.requests_per_second:>7.0f} "
            f"{load.p50_milliseconds:>7.2f} {load.p99_milliseconds:>7.2f}  "
            f"p99 is {load.p99_milliseconds / load.p50_milliseconds:.1f} times p50; without what the load was late "
            f"itself {load.served_p50_milliseconds:.2f} and {load.served_p99_milliseconds:.2f}; "
            f"it took {load.core:.2f} of a core; worst: {worst}",
            flush=True,
        )


def show_worst(case: Case, way: str, ours: Subject, highest: float) -> None:
    """Who held the cores while the slowest waited, in one more round."""
    print(f"{'':<29} {in_worst(ours.stack, LOAD, plan_of(ours.target(case, way), highest / 2))}", flush=True)


def show_two(case: Case, way: str, ours: Subject) -> None:
    """Two replicas beside one, on the same cores."""
    with two_replicas(ours, case.service, way) as two:
        figures = compare([ours, two], case, way)
        show(case, way, figures)
        if not case.writes:
            show_latency(case, way, [ours, two], figures["now"].load.requests_per_second)


@contextmanager
def subjects() -> Iterator[list[Subject]]:
    """Ours first."""
    with ExitStack() as running:
        ours = running.enter_context(stack_of("now"))
        found = [ours, running.enter_context(reference_of(ours))]
        if AGAINST:
            code = running.enter_context(checkout(AGAINST))
            found.append(running.enter_context(stack_of(AGAINST[:12], code)))
        yield found


def main() -> None:
    """Print the table."""
    end_in_order()
    cases = [case for case in CASES if not ONLY or case.name.startswith(tuple(ONLY.split(",")))]
    with subjects() as compared:
        print(f"this machine, with the stacks at rest: {in_words(floors())}", flush=True)
        print(HEAD, flush=True)
        for case in cases:
            for way in WAYS:
                figures = compare(compared, case, way)
                show(case, way, figures)
                if not case.writes:
                    highest = figures["now"].load.requests_per_second
                    show_latency(case, way, compared[:2], highest)
                    show_worst(case, way, compared[0], highest)
        for case in cases:
            if case.name in _OF_TWO:
                for way in WAYS:
                    show_two(case, way, compared[0])


if __name__ == "__main__":
    main()
