"""Bounds on real time that are promised to users, measured so that only the product can break them.

A machine that has more to do than it can makes everything late. The kernel tells for how long somebody here waited for
a processor or a disk (https://docs.kernel.org/accounting/psi.html), and for how long the host of a virtual machine let
its processors wait: that time is not the product's. On a quiet machine a bound holds as it stands.
"""

import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_PRESSURE = Path("/proc/pressure")
_STAT = Path("/proc/stat")
_STOLEN = 8
"""Field of a processor's line: https://docs.kernel.org/filesystems/proc.html#miscellaneous-kernel-statistics-in-proc-stat."""
MOST = 4
"""Nothing excuses more than so many times what was promised: what has not come by then does not."""


class Stopwatch:
    """Runs from when it is made."""

    def __init__(self) -> None:
        self._began, self._waited = time.monotonic(), _waited()

    def seconds(self) -> float:
        """What the product took until now, at least a quarter of what has passed."""
        passed, waited = time.monotonic() - self._began, _waited() - self._waited
        return max(passed - waited, passed / MOST)


@contextmanager
def promised(seconds: float) -> Iterator[None]:
    """What happens in the block takes no longer."""
    watch = Stopwatch()
    yield
    took = watch.seconds()
    assert took < seconds, f"it took {took:.2f} s, and {seconds} s are promised"


def _waited() -> float:
    """Seconds, since the machine began, that are not the product's; 0 where the kernel does not tell."""
    return _pressed("cpu") + _pressed("io") + _stolen()


def _pressed(by: str) -> float:
    found = re.search(r"^some .*total=(\d+)", _told(_PRESSURE / by))
    return int(found[1]) / 1e6 if found else 0.0


def _stolen() -> float:
    """Of the processor that waited longest."""
    lines = [line.split() for line in _told(_STAT).splitlines() if re.match(r"cpu\d", line)]
    return max((int(fields[_STOLEN]) for fields in lines), default=0) / os.sysconf("SC_CLK_TCK")


def _told(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
