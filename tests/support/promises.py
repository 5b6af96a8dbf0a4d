"""Bounds on real time that are promised to users, measured so that only the product can break them.

A machine that has more to do than it can makes everything late. The kernel tells for how long somebody here waited for
a processor (https://docs.kernel.org/accounting/psi.html): that time is not the product's. On a quiet machine a bound
holds as it stands.
"""

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_PRESSURE = Path("/proc/pressure/cpu")
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
    """Seconds, since the machine began, in which a program waited for a processor; 0 where the kernel does not tell."""
    try:
        told = _PRESSURE.read_text()
    except OSError:
        return 0.0
    found = re.search(r"^some .*total=(\d+)", told)
    return int(found[1]) / 1e6 if found else 0.0
