"""Processes that are there and answer nothing."""

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def hung(*pids: int) -> Iterator[None]:
    """Processes stand still for the length of the block; it begins when each of their threads does.

    A signal is sent, not taken, when `kill` returns: a thread on another processor goes on for a moment.
    """
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        deadline = time.monotonic() + 60
        while not all(_stands_still(pid) for pid in pids):
            assert time.monotonic() < deadline, "the processes stand still"
        yield
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)


def _stands_still(pid: int) -> bool:
    threads = Path(f"/proc/{pid}/task").iterdir()
    return all((thread / "stat").read_text().rpartition(")")[2].split()[0] == "T" for thread in threads)
