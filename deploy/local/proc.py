"""What the kernel knows about processes: start times, groups, working directories, marks."""

import asyncio
import contextlib
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

PROC = Path("/proc")


def send(pid: int, number: signal.Signals) -> None:
    """Signal one process; one that has gone already is no error."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def start_time(pid: int) -> str | None:
    """When the process began, opaque and comparable; with the pid it names one process for ever. None: gone."""
    if not PROC.is_dir():
        answer = subprocess.run(["ps", "-o", "lstart=", "-p", str(pid)], capture_output=True, text=True, check=False)
        return answer.stdout.strip() or None
    fields = _stat(pid)
    # A zombie holds no port, file or memory; only its parent can remove it.
    return None if fields is None or fields[0] in {"Z", "X"} else fields[19]


async def until_ended(pid: int) -> None:
    """Return when the process has ended: told by the kernel, without a look again and again. Linux only."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    loop, ended = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(descriptor, ended.set)
    try:
        await ended.wait()
    finally:
        loop.remove_reader(descriptor)
        os.close(descriptor)


def group_members(group: int) -> list[int]:
    """Living processes of a process group."""
    if not PROC.is_dir():
        answer = subprocess.run(["ps", "-A", "-o", "pid=,pgid=,state="], capture_output=True, text=True, check=False)
        rows = [line.split() for line in answer.stdout.splitlines()]
        return [int(row[0]) for row in rows if row[1] == str(group) and not row[2].startswith("Z")]
    return [pid for pid, fields in _processes() if fields[2] == str(group) and fields[0] not in {"Z", "X"}]


def working_in(directory: Path, program: str) -> list[int]:
    """Living processes whose program file has this name and whose working directory is `directory`."""
    found = []
    for pid, _ in _processes():
        with contextlib.suppress(OSError):
            if (PROC / str(pid) / "exe").readlink().name == program and (
                PROC / str(pid) / "cwd"
            ).readlink() == directory:
                found.append(pid)
    return found


def carries(pid: int, mark: str) -> bool:
    """Whether the process was started with the environment entry `mark` ("NAME=value"). False: no way to know."""
    try:
        return mark.encode() in (PROC / str(pid) / "environ").read_bytes().split(b"\0")
    except OSError:
        return False


def marked(mark: str) -> list[int]:
    """Living processes that carry the mark."""
    return [pid for pid, fields in _processes() if fields[0] not in {"Z", "X"} and carries(pid, mark)]


def _processes() -> Iterator[tuple[int, list[str]]]:
    if not PROC.is_dir():
        return
    for entry in PROC.iterdir():
        if entry.name.isdigit() and (fields := _stat(int(entry.name))) is not None:
            yield int(entry.name), fields


def _stat(pid: int) -> list[str] | None:
    """Fields of /proc/pid/stat after the program's name: state, parent, group, ... start time is number 19."""
    try:
        return (PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    except (OSError, ValueError):
        return None
