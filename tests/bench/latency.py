"""What happens on the cores while the slowest hundredth of the requests wait."""

import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import msgspec

from tests.bench.cores import IDLE, Hold, Holds, longest, merged, shares, stolen_seconds, traced, waited
from tests.bench.cpu import cpu_by_process
from tests.bench.load import Plan, Result
from tests.support.stack import ROOT, LocalStack

LOAD = (sys.executable, "-m", "tests.bench.load")
_LEAST_SHARE = 0.02


def in_worst(stack: LocalStack, load: Sequence[str], plan: Plan) -> str:
    """One more round of a plan, and in words who held the cores while its slowest hundredth waited."""
    processes = {part: list(cpu_by_process((running.pid,))) for part, running in stack.parts().items()}
    before = {part: waited(pids) for part, pids in processes.items()}
    stolen = stolen_seconds()
    told, holds = traced(load, msgspec.json.encode(plan), ROOT)
    after = {part: waited(pids) for part, pids in processes.items()}
    result = msgspec.json.decode(told, type=Result)
    if holds:
        found = _of_switches(result, holds, _names(processes, result.pid))
    else:
        found = _of_waits(before, after, plan.warmup_seconds + plan.seconds)
    return f"{found}; the host gave {1000 * (stolen_seconds() - stolen):.0f} ms of the cores to others"


def _names(processes: Mapping[str, Sequence[int]], load: int) -> Callable[[Hold], str]:
    parts = {thread: part for part, pids in processes.items() for pid in pids for thread in _threads(pid)}
    parts[load] = "the load"
    return lambda hold: parts.get(hold.thread) or f"other {hold.program}"


def _threads(pid: int) -> list[int]:
    return [int(task.name) for task in Path(f"/proc/{pid}/task").glob("*")]


def _of_switches(result: Result, holds: Holds, name: Callable[[Hold], str]) -> str:
    groups = merged(result.slowest)
    held = ", ".join(f"{who} {1000 * seconds:.1f}" for who, seconds in longest(holds, groups, name))
    idle = shares(holds, [result.measured], name).get(IDLE, 0.0)
    return (
        f"traced: the slowest {len(result.slowest)} in {len(groups)} groups of {_mean(groups):.1f} ms; meanwhile of "
        f"{len(holds)} cores {_in_words(shares(holds, groups, name))}; longest without a switch (ms): {held}; "
        f"nobody had {idle:.2f} in the whole round"
    )


def _mean(groups: Sequence[tuple[float, float]]) -> float:
    return 1000 * sum(end - begin for begin, end in groups) / len(groups)


def _in_words(found: Mapping[str, float]) -> str:
    return ", ".join(f"{who} {share:.2f}" for who, share in found.items() if share >= _LEAST_SHARE)


def _of_waits(
    before: Mapping[str, tuple[float, float]], after: Mapping[str, tuple[float, float]], seconds: float
) -> str:
    found = {
        part: [(now - then) / seconds for now, then in zip(after[part], before[part], strict=True)] for part in before
    }
    busiest = sorted(found.items(), key=lambda one: -one[1][0])[:3]
    words = ", ".join(f"{part} ran {ran:.2f} and waited {waiting:.2f}" for part, (ran, waiting) in busiest)
    return f"no trace, as perf may not look: in each second, of all threads, {words}"
