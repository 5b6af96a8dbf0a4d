"""Runs one container: started by the simulator as `python -I -S shim.py DIRECTORY`, outlives it, needs nothing of it.

It claims the directory (`started`), so that a second shim for the same container gives up: a command never runs twice.
It records the process (`process`), that it runs (`running`), its output (`log`) and its end (`exit`). Files appear
whole or not at all. Standard library only and few imports: forty of these start at once.
"""

import contextlib
import os
import select
import signal
import sys
import time

_CHUNK = 65536
_LONGEST_LINE = 16384
_START_ERROR = 128  # what containerd reports when the program cannot be executed
_SUBREAPER = 36  # PR_SET_CHILD_SUBREAPER, from linux/prctl.h


def main(directory: str) -> None:
    """Runs the container whose configuration lies in `directory`."""
    os.umask(0o077)
    os.chdir(directory)
    if not _claim():
        return
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    _become_subreaper()
    with open("config", "rb") as file:  # noqa: PTH123  pathlib costs 10 ms at start
        working_directory, count, *rest = file.read().split(b"\0")
    argv, environment = rest[: int(count)], rest[int(count) :]
    _Container(working_directory, argv, dict(entry.split(b"=", 1) for entry in environment if entry)).run()


def start_ticks(pid: int) -> str:
    """When a process began, in clock ticks after boot; empty when it is gone. With the pid it names one process."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:  # noqa: PTH123
            return file.read().rpartition(b") ")[2].split()[19].decode()
    except OSError:
        return ""


class _Container:
    def __init__(self, working_directory: bytes, argv: list[bytes], environment: dict[bytes, bytes]) -> None:
        self._working_directory, self._argv, self._environment = working_directory, argv, environment
        self._log = os.open("log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._buffers: dict[int, bytes] = {}
        self._streams: dict[int, bytes] = {}
        self._status: int | None = None
        self._child = 0

    def run(self) -> None:
        wake, wake_in = os.pipe()
        os.set_blocking(wake_in, False)
        signal.set_wakeup_fd(wake_in)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        problem = self._spawn()
        if problem:
            os.waitpid(self._child, 0)
            _record("exit", f"{_START_ERROR} 0 {time.time_ns()} {problem}")
            return
        _record("running", str(time.time_ns()))
        everyone_gone = False
        while not everyone_gone or self._streams:
            readable, _, _ = select.select([wake, *self._streams], [], [], 0.2 if everyone_gone else None)
            for stream in readable:
                if stream == wake:
                    os.read(wake, _CHUNK)
                else:
                    self._read(stream)
            if not everyone_gone:
                everyone_gone = self._reap()
            elif not readable:
                break  # a process that escaped holds the pipe; the container has ended all the same
        self._record_exit()

    def _spawn(self) -> str:
        """Forks and executes; returns what went wrong, or nothing."""
        out, out_in = os.pipe()
        err, err_in = os.pipe()
        gate, gate_in = os.pipe()
        problem, problem_in = os.pipe()
        self._child = os.fork()
        if self._child == 0:
            os.close(gate_in)
            self._exec(gate, out_in, err_in, problem_in)
        for descriptor in (out_in, err_in, gate, problem_in):
            os.close(descriptor)
        # recorded before the program runs: whoever finds no record knows that it never did
        _record("process", f"{self._child} {start_ticks(self._child)}")
        os.write(gate_in, b"g")
        os.close(gate_in)
        text = b""
        while chunk := os.read(problem, _CHUNK):
            text += chunk
        os.close(problem)
        self._streams = {out: b"stdout", err: b"stderr"}
        self._buffers = {out: b"", err: b""}
        return text.decode(errors="replace")

    def _exec(self, gate: int, out: int, err: int, problem: int) -> None:
        try:
            signal.set_wakeup_fd(-1)
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD, signal.SIGPIPE):
                signal.signal(number, signal.SIG_DFL)
            os.setsid()
            os.umask(0o022)
            if os.read(gate, 1) != b"g":
                os._exit(_START_ERROR)  # the shim died before it could record this process
            os.dup2(out, 1)
            os.dup2(err, 2)
            os.chdir(self._working_directory)
            os.execvpe(self._argv[0], self._argv, self._environment)  # noqa: S606  no shell is the point
        except OSError as error:
            name = self._argv[0].decode(errors="replace") if self._argv else ""
            os.write(problem, f'exec: "{name}": {(error.strerror or "").lower()}'.encode())
        finally:
            os._exit(_START_ERROR)

    def _read(self, stream: int) -> None:
        data = os.read(stream, _CHUNK)
        if not data:
            os.close(stream)
            rest = self._buffers.pop(stream)
            self._write(self._streams.pop(stream), [rest] if rest else [], b"F")
            return
        *lines, rest = (self._buffers[stream] + data).split(b"\n")
        self._write(self._streams[stream], lines, b"F")
        while len(rest) > _LONGEST_LINE:
            self._write(self._streams[stream], [rest[:_LONGEST_LINE]], b"P")
            rest = rest[_LONGEST_LINE:]
        self._buffers[stream] = rest

    def _write(self, name: bytes, lines: list[bytes], tag: bytes) -> None:
        now = time.time_ns()
        moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now // 10**9)).encode()
        prefix = b"%b.%09dZ %b %b " % (moment, now % 10**9, name, tag)
        if lines:
            os.write(self._log, b"".join(prefix + line + b"\n" for line in lines))

    def _reap(self) -> bool:
        """Collects ended processes; once the first one has ended the others are killed. True when none is left."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return True
            if pid == self._child:
                self._status = status
                self._kill_the_rest()
            elif pid and self._status is not None:
                self._kill_the_rest()
            elif not pid:
                return False

    def _kill_the_rest(self) -> None:
        with contextlib.suppress(OSError):
            os.killpg(self._child, signal.SIGKILL)
        try:
            with open("/proc/thread-self/children", "rb") as file:  # noqa: PTH123
                orphans = file.read().split()
        except OSError:
            return
        for pid in orphans:
            with contextlib.suppress(OSError):
                os.kill(int(pid), signal.SIGKILL)

    def _record_exit(self) -> None:
        status = self._status or 0
        number = os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0
        code = 128 + number if number else os.WEXITSTATUS(status)
        _record("exit", f"{code} {number} {time.time_ns()} ")


def _claim() -> bool:
    """Whether this shim is the one for its container; a hard link appears once, with its content."""
    mine = f"started.{os.getpid()}"
    _record(mine, f"{os.getpid()} {start_ticks(os.getpid())}")
    try:
        os.link(mine, "started")
    except FileExistsError:
        return False
    finally:
        os.unlink(mine)  # noqa: PTH108
    return True


def _become_subreaper() -> None:
    """Daemons of the container become children of this process, so that they end with it. Linux only."""
    try:
        import ctypes  # noqa: PLC0415

        ctypes.CDLL(None).prctl(_SUBREAPER, 1, 0, 0, 0)
    except (ImportError, OSError, AttributeError):
        return


def _record(name: str, text: str) -> None:
    temporary = f".{name}.new"
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    os.write(descriptor, text.encode())
    os.fsync(descriptor)
    os.close(descriptor)
    os.rename(temporary, name)  # noqa: PTH104


if __name__ == "__main__":
    main(sys.argv[1])
