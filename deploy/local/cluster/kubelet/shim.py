"""Runs one container: forked by `launcher.py` for the simulator, outlives both, needs nothing of them.

It claims the directory (`started`), so that a second shim for the same container gives up: a command never runs twice.
It records the process (`process`), that it runs (`running`), its output (`log`) and its end (`exit`). Files appear
whole or not at all, and `started` lasts: what a power failure takes of the rest, it takes with the process, and an end
that is not recorded counts as killed. Of what it executes, Python programs that the launcher has loaded (`PROGRAMS`)
are run in the forked process itself; forty of these start at once.

The log is as containerd writes it: for each line one record, `TIME stdout|stderr F|P TEXT`, with a time of its own,
both streams in one file in the order in which they were read, a little of each in turn. A line of more than 16 KiB is
several records, all but its last one P for partial; what is not ended is written when 20 KiB of it have come or the
stream ends, as P too.

It also executes further programs in the container, for whoever connects to the socket `exec` in the directory: they are
its children as the first process is, and end with it. A request is its length in four bytes, then fields separated by
NUL: `tty` or nothing, the number of arguments, the arguments, more environment; its descriptors (input, output, error,
or one terminal) travel beside it. The answers are lines: `failed WHY`, or `started PID` and later `exited CODE`. A
connection that closes earlier ends the program.
"""

import contextlib
import os
import select
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable

from deploy.local.cluster.kubelet.forked import close_descriptors, reset_signals, set_name

_CHUNK = 65536
_LOG_CHUNK = 4096  # containerd's buffer
_LONGEST_RECORD = 16384
_START_ERROR = 128  # what containerd reports when the program cannot be executed
_SUBREAPER = 36  # PR_SET_CHILD_SUBREAPER, from linux/prctl.h
_REQUEST_SECONDS = 2.0
_HANGUP_SECONDS = 0.5  # between asking a program whose client has gone to end and killing it

Program = Callable[[list[str]], int]
PROGRAMS: dict[bytes, Program] = {}
"""By the content of the file that stands for it: called with the arguments, it answers the exit code."""


def main(directory: bytes) -> None:
    """Runs the container whose configuration lies in `directory`."""
    os.umask(0o077)
    os.chdir(directory)
    if not _claim():
        return
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    _become_subreaper()
    with open("config", "rb") as file:  # noqa: PTH123
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


def sync(path: str | os.PathLike[str]) -> None:
    """Returns when a file's content, or a directory's entries, would survive a power failure."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class _Container:
    def __init__(self, working_directory: bytes, argv: list[bytes], environment: dict[bytes, bytes]) -> None:
        self._working_directory, self._argv, self._environment = working_directory, argv, environment
        self._log = os.open("log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._buffers: dict[int, bytes] = {}
        self._streams: dict[int, bytes] = {}
        self._next_moment = 0
        self._status: int | None = None
        self._child = 0
        self._sessions = _Sessions(working_directory, environment)

    def run(self) -> None:
        wake, wake_in = os.pipe()
        os.set_blocking(wake_in, False)
        signal.set_wakeup_fd(wake_in)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        self._sessions.listen()
        problem = self._spawn()
        if problem:
            os.waitpid(self._child, 0)
            _record("exit", f"{_START_ERROR} 0 {time.time_ns()} {problem}")
            return
        _record("running", str(time.time_ns()))
        everyone_gone = False
        while not everyone_gone or self._streams:
            seconds = 0.2 if everyone_gone else self._sessions.overdue_in()
            readable, _, _ = select.select([wake, *self._streams, *self._sessions.descriptors()], [], [], seconds)
            for stream in readable:
                if stream == wake:
                    os.read(wake, _CHUNK)
                elif stream in self._streams:
                    self._read(stream)
                else:
                    self._sessions.attend(stream)
            self._sessions.kill_overdue()
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
        if os.read(gate, 1) != b"g":
            os._exit(_START_ERROR)  # the shim died before it could record this process
        _execute(self._argv, self._environment, self._working_directory, (-1, out, err), problem)

    def _read(self, stream: int) -> None:
        data = os.read(stream, _LOG_CHUNK)
        if not data:
            os.close(stream)
            rest = self._buffers.pop(stream)
            self._write(self._streams.pop(stream), _records(rest, ending=b"P") if rest else [])
            return
        *lines, rest = (self._buffers[stream] + data).split(b"\n")
        records = [record for line in lines for record in _records(line)]
        while len(rest) >= _LONGEST_RECORD + _LOG_CHUNK:
            records.append((b"P", rest[:_LONGEST_RECORD]))
            rest = rest[_LONGEST_RECORD:]
        self._buffers[stream] = rest
        self._write(self._streams[stream], records)

    def _write(self, name: bytes, records: list[tuple[bytes, bytes]]) -> None:
        if not records:
            return
        # a nanosecond apart: a look at the clock for each takes longer than the rest
        second, first = divmod(max(time.time_ns(), self._next_moment), 10**9)
        if first + len(records) > 10**9:
            second, first = second + 1, 0
        self._next_moment = second * 10**9 + first + len(records)
        begin = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second)).encode()
        numbered = enumerate(records, first)
        texts = [b"%b.%09dZ %b %b %b\n" % (begin, moment, name, tag, text) for moment, (tag, text) in numbered]
        os.write(self._log, b"".join(texts))

    def _reap(self) -> bool:
        """Collects ended processes; once the first one has ended the others are killed. True when none is left."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return True
            if pid == self._child:
                self._status = status
                self._sessions.refuse()
                self._kill_the_rest()
            elif pid:
                self._sessions.ended(pid, status)
                if self._status is not None:
                    self._kill_the_rest()
            else:
                return False

    def _kill_the_rest(self) -> None:
        for group in (self._child, *self._sessions.processes()):
            with contextlib.suppress(OSError):
                os.killpg(group, signal.SIGKILL)
        try:
            with open("/proc/thread-self/children", "rb") as file:  # noqa: PTH123
                orphans = file.read().split()
        except OSError:
            return
        for pid in orphans:
            with contextlib.suppress(OSError):
                os.kill(int(pid), signal.SIGKILL)

    def _record_exit(self) -> None:
        code, number = _code(self._status or 0)
        _record("exit", f"{code} {number} {time.time_ns()} ")


class _Sessions:
    """Programs executed beside the container's first process."""

    def __init__(self, working_directory: bytes, environment: dict[bytes, bytes]) -> None:
        self._working_directory, self._environment = working_directory, environment
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._connections: dict[int, socket.socket] = {}  # by their descriptor
        self._processes: dict[int, int] = {}  # the connection's descriptor by pid
        self._overdue: dict[int, float] = {}  # when to kill, by pid

    def listen(self) -> None:
        self._listener.bind(b"exec")  # below the private directory that is the current one: no long path, no stranger
        self._listener.listen(64)

    def refuse(self) -> None:
        """The container ends: no further program starts in it."""
        self._listener.close()

    def descriptors(self) -> list[int]:
        listening = self._listener.fileno()
        return [*self._connections] if listening < 0 else [listening, *self._connections]

    def processes(self) -> list[int]:
        return [*self._processes, *self._overdue]

    def overdue_in(self) -> float | None:
        return max(min(self._overdue.values()) - time.monotonic(), 0) if self._overdue else None

    def attend(self, descriptor: int) -> None:
        if descriptor == self._listener.fileno():
            connection, _ = self._listener.accept()
            connection.settimeout(_REQUEST_SECONDS)
            with contextlib.suppress(OSError, ValueError, IndexError):
                self._start(connection)
        elif descriptor in self._connections:
            self._leave(descriptor)

    def ended(self, pid: int, status: int) -> None:
        self._overdue.pop(pid, None)
        connection = self._connections.pop(self._processes.pop(pid, -1), None)
        if connection is not None:
            with contextlib.suppress(OSError):
                connection.sendall(b"exited %d\n" % _code(status)[0])
            connection.close()

    def kill_overdue(self) -> None:
        for pid, moment in list(self._overdue.items()):
            if moment <= time.monotonic():
                del self._overdue[pid]
                _signal_group(pid, signal.SIGKILL)

    def _leave(self, descriptor: int) -> None:
        """The client has gone, or speaks out of turn: its program is to end."""
        self._connections.pop(descriptor).close()
        for pid in [pid for pid, owner in self._processes.items() if owner == descriptor]:
            del self._processes[pid]
            _signal_group(pid, signal.SIGHUP)
            self._overdue[pid] = time.monotonic() + _HANGUP_SECONDS

    def _start(self, connection: socket.socket) -> None:
        body, descriptors = _receive(connection)
        try:
            terminal, count, *rest = body.split(b"\0")
            argv, extra = rest[: int(count)], rest[int(count) :]
            environment = self._environment | dict(entry.split(b"=", 1) for entry in extra if entry)
            pid, problem = self._fork(argv, environment, descriptors, terminal=terminal == b"tty")
        finally:
            for descriptor in descriptors:
                os.close(descriptor)
        if problem:
            os.waitpid(pid, 0)
            connection.sendall(b"failed " + problem.replace(b"\n", b" ") + b"\n")
            connection.close()
            return
        self._processes[pid] = connection.fileno()
        self._connections[connection.fileno()] = connection
        connection.sendall(b"started %d\n" % pid)

    def _fork(
        self, argv: list[bytes], environment: dict[bytes, bytes], descriptors: list[int], *, terminal: bool
    ) -> tuple[int, bytes]:
        problem, problem_in = os.pipe()
        pid = os.fork()
        if pid == 0:
            streams = (descriptors[0],) * 3 if terminal else tuple(descriptors)
            _execute(argv, environment, self._working_directory, streams, problem_in, terminal=terminal)
        os.close(problem_in)
        text = b""
        while chunk := os.read(problem, _CHUNK):
            text += chunk
        os.close(problem)
        return pid, text


def _receive(connection: socket.socket) -> tuple[bytes, list[int]]:
    """A request and its descriptors."""
    data, ancillary, _, _ = connection.recvmsg(_CHUNK, 256)
    descriptors = []
    for level, kind, content in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            words = [content[i : i + 4] for i in range(0, len(content) - len(content) % 4, 4)]
            descriptors += [int.from_bytes(word, sys.byteorder) for word in words]
    for descriptor in descriptors:
        os.set_inheritable(descriptor, False)
    while len(data) < 4 or len(data) < 4 + int.from_bytes(data[:4], "big"):  # noqa: PLR2004  the length's own bytes
        chunk = connection.recv(_CHUNK)
        if not chunk:
            raise ValueError("the request is cut off")
        data += chunk
    return data[4:], descriptors


def _execute(
    argv: list[bytes],
    environment: dict[bytes, bytes],
    working_directory: bytes,
    streams: tuple[int, ...],
    problem: int,
    *,
    terminal: bool = False,
) -> None:
    """In a forked child: becomes the program; never returns. What went wrong is written to `problem`."""
    try:
        reset_signals()
        os.setsid()
        os.umask(0o022)
        if terminal:
            import fcntl  # noqa: PLC0415
            import termios  # noqa: PLC0415

            fcntl.ioctl(streams[0], termios.TIOCSCTTY, 0)
        for target, descriptor in enumerate(streams):
            if descriptor >= 0:
                os.dup2(descriptor, target)
        os.chdir(working_directory)
        program = _program(argv[0])
        if program is not None:
            _call(program, argv, environment)
        os.execvpe(argv[0], argv, environment)  # noqa: S606  no shell is the point
    except OSError as error:
        name = argv[0].decode(errors="replace") if argv else ""
        reason = (error.strerror or "").lower()
        if isinstance(error, FileNotFoundError) and "/" not in name:
            reason = "executable file not found in $PATH"
        os.write(problem, f'exec: "{name}": {reason}'.encode())
    finally:
        os._exit(_START_ERROR)


def _program(path: bytes) -> Program | None:
    """What is loaded of it; None: it is to be executed."""
    if not PROGRAMS or b"/" not in path:
        return None
    try:
        with open(path, "rb") as file:  # noqa: PTH123
            return PROGRAMS.get(file.read(_CHUNK))
    except OSError:
        return None


def _call(program: Program, argv: list[bytes], environment: dict[bytes, bytes]) -> None:
    """Never returns: this process is the program's, with nothing of the shim's but what was loaded before it."""
    code = 1
    try:
        close_descriptors()  # to the parent that is the sign that the program runs
        signal.signal(signal.SIGPIPE, signal.SIG_IGN)  # as every interpreter has it
        os.environb.clear()
        os.environb.update(environment)
        arguments = [os.fsdecode(word) for word in argv[1:]]
        set_name(f"{os.fsdecode(os.path.basename(argv[0]))} {' '.join(arguments[:1])}")  # noqa: PTH119
        code = program(arguments)
        sys.stdout.flush()
    except BaseException:  # noqa: BLE001  as the interpreter ends
        traceback.print_exc()
    finally:
        os._exit(code)


def _records(line: bytes, ending: bytes = b"F") -> list[tuple[bytes, bytes]]:
    """A line as it is logged: tags and texts."""
    if len(line) <= _LONGEST_RECORD:
        return [(ending, line)]
    return [(b"P", line[:_LONGEST_RECORD]), *_records(line[_LONGEST_RECORD:], ending)]


def _code(status: int) -> tuple[int, int]:
    """The exit code as a shell tells it, and the signal that ended the process or 0."""
    number = os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0
    return (128 + number if number else os.WEXITSTATUS(status)), number


def _signal_group(pid: int, number: int) -> None:
    with contextlib.suppress(OSError):
        os.killpg(pid, number)


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
    for path in ("started", ".", ".."):
        sync(path)
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
    os.close(descriptor)
    os.rename(temporary, name)  # noqa: PTH104
