"""How late this machine wakes whoever is to run at once: no server can answer sooner.

`python -m tests.bench.floor CORE SECONDS` holds to a core, before everybody else where it may, and sleeps and works for
a tenth of a millisecond each in turn.
"""

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress

import msgspec

from tests.support.stack import ROOT

SECONDS = 4.0
_SLEEP_SECONDS = _WORK_SECONDS = 1e-4
_LATE_SECONDS = 1e-3


class Floor(msgspec.Struct, frozen=True, kw_only=True):
    """Of one core."""

    seconds: float
    """For which it was looked at."""
    late: list[float]
    """Seconds of each time that it woke more than a millisecond late."""


def look(core: int, seconds: float) -> Floor:
    """From a process of its own."""
    os.sched_setaffinity(0, {core})
    with suppress(PermissionError):
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    late = []
    begin = now = time.perf_counter()
    while now < begin + seconds:
        time.sleep(_SLEEP_SECONDS)
        woken = time.perf_counter()
        if (by := woken - now - _SLEEP_SECONDS) > _LATE_SECONDS:
            late.append(by)
        while (now := time.perf_counter()) < woken + _WORK_SECONDS:
            pass
    return Floor(seconds=seconds, late=late)


def floors() -> list[Floor]:
    """Of all cores at once."""
    command = (sys.executable, "-m", "tests.bench.floor")
    looking = [
        subprocess.Popen((*command, str(core), str(SECONDS)), cwd=ROOT, stdout=subprocess.PIPE)
        for core in sorted(os.sched_getaffinity(0))
    ]
    return [msgspec.json.decode(one.communicate()[0], type=Floor) for one in looking]


def in_words(found: Sequence[Floor]) -> str:
    """For a person."""
    late = sorted(by for one in found for by in one.late)
    if not late:
        return "no core ever woke more than 1 ms late"
    times, most = len(late) / found[0].seconds, 1000 * late[-1]
    share = 100 * sum(late) / sum(one.seconds for one in found)
    return (
        f"{times:.1f} times a second a core woke over 1 ms late, {most:.1f} ms at most, {share:.2f} % of the time, "
        "behind threads of the kernel, which wait for nobody"
    )


if __name__ == "__main__":
    sys.stdout.buffer.write(msgspec.json.encode(look(int(sys.argv[1]), float(sys.argv[2]))))
