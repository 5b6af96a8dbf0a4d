"""What a stack that was killed may have left running, found without ever taking a stranger for ours."""

import os
import time

from deploy.local import proc
from deploy.local.part import POLL_SECONDS, end_processes
from deploy.local.state import StateDirectory

_MARK = "STACK_STATE"
_GRACE_SECONDS = 3.0


def mark(state: StateDirectory) -> dict[str, str]:
    """Environment entry that every process of the stack on this folder carries."""
    return {_MARK: str(state.root)}


def end(state: StateDirectory) -> None:
    """End what is left of the folder's last stack. Blocks while it winds down: postgres may write a checkpoint.

    Call while holding the folder's lock: only then is whoever lives a leftover.
    """
    deadline = time.monotonic() + _GRACE_SECONDS
    while find(state) and time.monotonic() < deadline:
        time.sleep(POLL_SECONDS)
    end_processes(lambda: find(state))


def find(state: StateDirectory) -> list[int]:
    """Pids of the folder's stack, ourselves excluded.

    A process is ours if it carries the mark, or has the pid and the start time that were written down, or is a
    postgres that works in our data folder (its processes overwrite their environment with a title).
    """
    found = set(proc.marked(f"{_MARK}={state.root}"))
    found.update(proc.working_in(state.postgres.resolve(), "postgres"))
    before = state.running()
    for part in before.parts if before else []:
        if part.started and proc.start_time(part.pid) == part.started:
            found.update(proc.group_members(part.pid))
    return sorted(found - {os.getpid(), os.getppid()})
