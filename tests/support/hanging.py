"""Processes that are there and answer nothing."""

import os
import signal
import time
from collections.abc import Container, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

_STOPPED = frozenset("T")
_STOPPED_OR_ENDED = frozenset("TZ")
"""States of a thread: https://docs.kernel.org/filesystems/proc.html."""


@contextmanager
def hung(*pids: int) -> Iterator[None]:
    """Processes stand still for the length of the block; it begins when each of their threads does.

    A signal is sent, not taken, when `kill` returns: a thread on another processor goes on for a moment.
    """
    with _hung(pids, _STOPPED):
        yield


@contextmanager
def hung_with_children(pid: int) -> Iterator[None]:
    """A process stands still for the length of the block, and so do its children.

    They are asked for when it stands still: no other comes then. One that ends just then, as a worker of PostgreSQL
    may, stays a zombie, which answers nothing either.
    """
    with hung(pid):
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        with _hung([int(child) for child in children], _STOPPED_OR_ENDED):
            yield


@contextmanager
def _hung(pids: Sequence[int], states: Container[str]) -> Iterator[None]:
    stopped: list[int] = []
    try:
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
            stopped.append(pid)
        deadline = time.monotonic() + 60
        while not all(_is_in(states, pid) for pid in pids):
            assert time.monotonic() < deadline, "the processes stand still"
        yield
    finally:
        for pid in stopped:
            os.kill(pid, signal.SIGCONT)


def _is_in(states: Container[str], pid: int) -> bool:
    threads = Path(f"/proc/{pid}/task").iterdir()
    return all((thread / "stat").read_text().rpartition(")")[2].split()[0] in states for thread in threads)
