"""Who holds the cores while the slowest requests wait: every switch of the kernel's scheduler, as `perf` records them.

Where `perf` is missing or may not look, it still says how long each process waited for a core in all.
"""

import bisect
import os
import re
import shutil
import subprocess
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

IDLE = "nobody"
Interval = tuple[float, float]
"""Beginning and end, in seconds of the monotonic clock."""
_PERF = (
    *("perf", "record", "--quiet", "--all-cpus", "--clockid", "CLOCK_MONOTONIC"),
    # a buffer that holds a whole round: emptied meanwhile it would hold a core itself
    *("--mmap-pages", "64M", "--event", "sched:sched_switch"),
)
_SWITCH = re.compile(r"\[(\d+)\]\s+([\d.]+): +sched:sched_switch: prev_comm=(.*) prev_pid=(\d+) prev_prio=")


@dataclass(frozen=True, slots=True)
class Hold:
    """A thread on a core, from one switch to the next."""

    begin: float
    end: float
    thread: int
    """0: nobody."""
    program: str
    """As the kernel calls the thread."""


Holds = dict[int, list[Hold]]
"""Of each core, in order."""


def traced(command: Sequence[str], given: bytes, folder: Path) -> tuple[bytes, Holds]:
    """Run a program, which is given so much on stdin; what it says, and who held which core meanwhile.

    No holds: `perf` is missing or may not look; the program has run without it. With it all that is measured costs a
    tenth more.
    """
    with tempfile.NamedTemporaryFile(prefix="gpudev-bench-", suffix=".perf") as file:
        recorder = (*_PERF, "--output", file.name, "--") if _may_trace() else ()
        done = subprocess.run([*recorder, *command], cwd=folder, input=given, stdout=subprocess.PIPE, check=True)
        if not recorder:
            return done.stdout, {}
        shown = ["perf", "script", "--ns", "--fields", "cpu,time,event,trace", "--input", file.name]
        lines = subprocess.run(shown, capture_output=True, text=True, errors="replace", check=True).stdout
        return done.stdout, holds_of(lines.splitlines())


@cache
def _may_trace() -> bool:
    if shutil.which("perf") is None:
        return False
    command = [*_PERF, "--output", "/dev/null", "--", "true"]
    return subprocess.run(command, check=False, capture_output=True).returncode == 0


def holds_of(lines: Iterable[str]) -> Holds:
    """From what `perf script` shows of switches."""
    holds: Holds = defaultdict(list)
    since: dict[int, float] = {}
    for line in lines:
        if found := _SWITCH.search(line):
            core, at = int(found[1]), float(found[2])
            if core in since:
                holds[core].append(Hold(since[core], at, int(found[4]), found[3]))
            since[core] = at
    return dict(holds)


def merged(intervals: Iterable[Interval]) -> list[Interval]:
    """The same time in intervals that do not meet."""
    apart: list[Interval] = []
    for begin, end in sorted(intervals):
        if apart and begin <= apart[-1][1]:
            apart[-1] = (apart[-1][0], max(apart[-1][1], end))
        else:
            apart.append((begin, end))
    return apart


def within(holds: Sequence[Hold], interval: Interval) -> Iterable[tuple[Hold, float]]:
    """One core's holds in an interval, and the seconds of each that fall into it."""
    begin, end = interval
    first = max(0, bisect.bisect_right(holds, begin, key=lambda hold: hold.begin) - 1)
    for hold in holds[first:]:
        if hold.begin >= end:
            return
        if hold.end > begin:
            yield hold, min(hold.end, end) - max(hold.begin, begin)


def shares(holds: Holds, intervals: Sequence[Interval], name: Callable[[Hold], str]) -> dict[str, float]:
    """What each had of a core in the intervals, the greatest first: of two cores they make 2 together.

    Args:
        holds: As recorded.
        intervals: That do not meet.
        name: Of who holds.
    """
    seconds: dict[str, float] = defaultdict(float)
    for core in holds.values():
        for interval in intervals:
            for hold, held in within(core, interval):
                seconds[name(hold) if hold.thread else IDLE] += held
    whole = sum(end - begin for begin, end in intervals)
    return {who: held / whole for who, held in sorted(seconds.items(), key=lambda one: -one[1])}


def longest(holds: Holds, intervals: Sequence[Interval], name: Callable[[Hold], str]) -> list[tuple[str, float]]:
    """The three who held a core for longest without a switch, and for how many seconds."""
    found = [
        (name(hold), held)
        for core in holds.values()
        for interval in intervals
        for hold, held in within(core, interval)
        if hold.thread
    ]
    return sorted(found, key=lambda one: -one[1])[:3]


def stolen_seconds() -> float:
    """Of all cores since the machine began, what its host has given to others; in hundredths of a second."""
    return int(Path("/proc/stat").read_text().split()[8]) / os.sysconf("SC_CLK_TCK")


def waited(processes: Iterable[int]) -> tuple[float, float]:
    """Seconds that the processes' threads have run, and have been ready and waited for a core, since they began."""
    ran = waiting = 0
    for process in processes:
        for task in Path(f"/proc/{process}/task").glob("*/schedstat"):
            fields = _fields(task)
            ran, waiting = ran + int(fields[0]), waiting + int(fields[1])
    return ran / 1e9, waiting / 1e9


def _fields(path: Path) -> list[str]:
    try:
        return path.read_text().split()
    except OSError:
        return ["0", "0"]
