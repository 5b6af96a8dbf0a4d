"""The pod's first process: it starts the SSH server and the job's command, and ends with the command."""

import contextlib
import os
import re
import selectors
import signal
import site
import subprocess
import sys
import time
import traceback
from pathlib import Path

from deploy.local.cluster.kubelet.forked import close_descriptors, reset_signals, set_name, write_outputs_to
from deploy.local.tools.jupyter import Jupyter
from deploy.local.tools.listing import fitting, list_tree
from deploy.local.tools.pod import Pod, write_private

_KEPT_BYTES = 16 << 20
_CHUNK = 65536
_RESTART_SECONDS = 1.0
_DRAIN_SECONDS = 0.2  # what the command has left in the background may hold its output open
_UNSEEN_SECONDS = 0.3  # the runtime hands on what has no end only when there is much of it
_TELLS = 3
_SSHD = object()
"""Marks the pipe on which the SSH server tells that it listens."""
_CUT, _WHOLE = b"\x1f", b"\x1e"
_MARKED_END = re.compile(rb"([\x1e\x1f])\n")
_MESSAGE_BYTES = 4096  # of a termination message: Kubernetes keeps no more


class FirstProcess:
    """One run of the pod's main container.

    Args:
        pod: That it runs in.
        argv: The job's command; empty: idle until asked to end.
        directory: Where the command starts; None: where the container did, and at home where that is its root.
        listed: Directory whose listing is left at the end; None: none.
        patience_seconds: How long the command waits for the SSH server's first answer at most.
    """

    def __init__(
        self, pod: Pod, argv: list[str], *, directory: str | None, listed: str | None, patience_seconds: int
    ) -> None:
        self._pod, self._argv, self._directory, self._listed = pod, argv, directory, listed
        self._patience_seconds = patience_seconds
        self._stopping = False
        self._selector = selectors.DefaultSelector()
        self._command: subprocess.Popen[bytes] | None = None
        self._records = Records()
        self._sshd: int | None = None
        self._sshd_due = 0.0
        self._sshd_listens = False
        self._jupyter: subprocess.Popen[bytes] | None = None

    def run(self) -> int:
        """Until the command has ended, or SIGTERM comes while there is none; the exit code."""
        self._listen_for_signals()
        if not self._pod.authorized_keys.exists():
            write_private(self._pod.authorized_keys, self._pod.first_keys.read_bytes())
        self._keep_sshd()
        self._jupyter = Jupyter(self._pod).resume()
        if not self._argv:
            while not self._stopping:
                self._turn(None)
            return 0
        code = self._run_command()
        self._leave_listing()
        return code

    def _run_command(self) -> int:
        self._await_sshd()
        if self._stopping:
            return 128 + signal.SIGTERM
        try:
            self._start_command()
        except OSError as error:
            print(f"gpudev: {error.filename or self._argv[0]}: {error.strerror}", file=sys.stderr)
            return 127 if isinstance(error, FileNotFoundError) else 126
        return self._follow_command()

    def _listen_for_signals(self) -> None:
        wake, wake_in = os.pipe()
        os.set_blocking(wake_in, False)
        signal.set_wakeup_fd(wake_in, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)
        self._selector.register(wake, selectors.EVENT_READ, None)

    def _stop(self, number: int, _: object) -> None:
        self._stopping = True
        if self._command is not None:
            self._signal(self._command.pid, number)

    @staticmethod
    def _signal(group: int, number: int) -> bool:
        """To all of the command, as a shell does not pass signals on; whether anyone was there."""
        try:
            os.killpg(group, number)
        except (ProcessLookupError, PermissionError):  # macOS says the latter of a group of zombies
            return False
        return True

    def _await_sshd(self) -> None:
        """The job's time counts from then: the command has no more of it than is counted."""
        deadline = time.monotonic() + self._patience_seconds
        while not self._stopping and not self._sshd_listens and (left := deadline - time.monotonic()) > 0:
            self._turn(left)

    def _start_command(self) -> None:
        self._log = _Log(self._pod.run / "command.log")
        self._command = subprocess.Popen(
            self._argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd=(directory := self._enter_directory()),
            env={**self._command_environment(), "PWD": str(directory)},
            start_new_session=True,
        )
        if self._command.stdout is not None:
            self._selector.register(self._command.stdout.fileno(), selectors.EVENT_READ, self._log)
        if self._stopping:
            self._signal(self._command.pid, signal.SIGTERM)

    def _enter_directory(self) -> Path:
        if self._directory is not None:
            directory = self._pod.inside(self._directory)
            directory.mkdir(parents=True, exist_ok=True)
            return directory
        return self._pod.home if Path.cwd() == self._pod.root.resolve() else Path.cwd()

    def _command_environment(self) -> dict[str, str]:
        """A HOME of the user's is the command's alone."""
        home = self._pod.commands_home
        return {**os.environ, "HOME": self._pod.mounted(home.read_text())} if home.exists() else dict(os.environ)

    def _follow_command(self) -> int:
        command = self._command
        if command is None:
            raise RuntimeError("no command was started")
        while command.poll() is None:
            self._turn(None)
        # asked to stop, what the shell had started may clean up within the grace that the pod has
        while self._stopping and self._signal(command.pid, 0):
            self._turn(_DRAIN_SECONDS)
        while self._turn(_DRAIN_SECONDS):
            pass
        _write(1, self._records.end())
        return command.returncode if command.returncode >= 0 else 128 - command.returncode

    def _turn(self, seconds: float | None) -> bool:
        """Wait for something and attend to it; whether output came."""
        waits = (self._keep_sshd(), seconds, self._records.unseen_seconds(time.monotonic()))
        found = self._selector.select(min((wait for wait in waits if wait is not None), default=None))
        _write(1, self._records.cut(time.monotonic()))
        output = False
        for key, _ in found:
            data = os.read(key.fd, _CHUNK)
            if key.data is None:
                continue
            if key.data is _SSHD:
                self._sshd_listens = bool(data)
                self._selector.unregister(key.fd)
                os.close(key.fd)
            elif data:
                _write(1, self._records.text(data, time.monotonic()))
                key.data.write(data)
                output = True
            else:
                self._selector.unregister(key.fd)
        if self._jupyter is not None:
            self._jupyter.poll()  # a zombie would look alive to those who end it
        return output

    def _keep_sshd(self) -> float | None:
        """Start the SSH server when it does not run; in how many seconds to look again, None: when a signal comes."""
        if self._sshd is not None and os.waitpid(self._sshd, os.WNOHANG) == (0, 0):
            return None
        if self._sshd is not None:
            self._sshd, self._sshd_due = None, time.monotonic() + _RESTART_SECONDS
        if time.monotonic() < self._sshd_due:
            return self._sshd_due - time.monotonic()
        told, tells = os.pipe()
        self._sshd = os.fork()
        if self._sshd == 0:
            _become_sshd(self._pod, tells)
        os.close(tells)
        self._selector.register(told, selectors.EVENT_READ, _SSHD)
        return None

    def _leave_listing(self) -> None:
        if self._listed is None or not self._pod.last_message.exists():
            return
        with contextlib.suppress(OSError):
            listing = list_tree(self._pod.inside(self._listed))
            self._pod.last_message.write_bytes(fitting(listing, _MESSAGE_BYTES))


class Records:
    """A command's output as records of the pod's log, with the marks that `services/jobs/domain/log_marks.py` tells of.

    Text without an end is not seen before its record is ended, which it is when it has waited for a while.
    """

    def __init__(self) -> None:
        self._last = b""
        self._since: float | None = None

    def text(self, data: bytes, now: float) -> bytes:
        """What was printed, as it is to be written."""
        written = _MARKED_END.sub(rb"\1" + _WHOLE + b"\n", self._last + data)[len(self._last) :]
        _, line_feed, rest = data.rpartition(b"\n")
        if line_feed:
            self._last, self._since = b"", None
        if rest:
            self._last = rest[-1:]
            self._since = now if self._since is None else self._since
        return written

    def unseen_seconds(self, now: float) -> float | None:
        """In how many seconds there is something to cut; None: text is needed first."""
        return None if self._since is None else max(0.0, self._since + _UNSEEN_SECONDS - now)

    def cut(self, now: float) -> bytes:
        """What is to be written when text has waited for too long."""
        return self._end_record() if self.unseen_seconds(now) == 0 else b""

    def end(self) -> bytes:
        """What is to be written at the end: the last byte is told, even if it looks like a mark."""
        return self._end_record() if self._last in {_CUT, _WHOLE} else b""

    def _end_record(self) -> bytes:
        self._last, self._since = b"", None
        return _CUT + b"\n"


class _Log:
    """A file that keeps the end of what was written to it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = path.open("ab", buffering=0)

    def write(self, data: bytes) -> None:
        """Add data; now and then the beginning is let go."""
        self._file.write(data)
        if self._file.tell() > 2 * _KEPT_BYTES:
            self._file.close()
            with self._path.open("rb") as file:
                file.seek(-_KEPT_BYTES, os.SEEK_END)
                write_private(self._path, file.read())
            self._file = self._path.open("ab", buffering=0)


def _write(descriptor: int, data: bytes) -> None:
    with contextlib.suppress(BrokenPipeError):
        while data:
            data = data[os.write(descriptor, data) :]


def _become_sshd(pod: Pod, tells: int) -> None:
    """In a forked child, which costs nothing where the server is loaded already; never returns.

    Args:
        pod: That it runs in.
        tells: Descriptor of a pipe that is told when the server listens.
    """
    try:
        reset_signals()
        os.setsid()
        write_outputs_to(os.fsencode(pod.run / "sshd.log"))
        os.dup2(tells, _TELLS)
        close_descriptors(_TELLS + 1)
        os.chdir(pod.home)
        set_name("gpudev sshd")
        if sys.flags.no_site:
            site.main()  # the program alone needs no packages, so it has none
        from deploy.local.tools import sshd  # noqa: PLC0415  costs a third of a second

        sshd.serve(pod, _TELLS)
    except BaseException:  # noqa: BLE001  nothing may go on as the first process
        traceback.print_exc()
    finally:
        os._exit(1)
