"""Programs executed in a running container, beside its first process: what exec, probes and SSH sessions do.

The container's shim is their parent, so that they and whatever they leave behind end with the container.
"""

import asyncio
import errno
import fcntl
import os
import pty
import socket
import struct
import sys
import termios
from collections.abc import Sequence
from pathlib import Path

_CHUNK = 65536
_LOST = 137
_END_OF_INPUT = b"\x04"
_DRAIN_SECONDS = 1.0  # a background process may hold the output open for ever
_CLOSED = (errno.EIO, errno.EPIPE, errno.ECONNRESET)  # EIO: the last process has closed the terminal


class NotRunning(Exception):
    """The container does not run (any more)."""


class CannotExecute(Exception):
    """The program could not be executed; the text says why."""


class Stream:
    """Our end of a pipe or a terminal, without blocking."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        os.set_blocking(descriptor, False)

    async def read(self) -> bytes:
        """What has come, at most 64 KiB; empty at the end."""
        while self._descriptor >= 0:
            try:
                return os.read(self._descriptor, _CHUNK)
            except BlockingIOError:
                await self._until_ready(writing=False)
            except OSError as error:
                if error.errno not in _CLOSED:
                    raise
                return b""
        return b""

    async def write(self, data: bytes) -> None:
        """Writes all of it; what nobody reads any more is dropped."""
        while data and self._descriptor >= 0:
            try:
                data = data[os.write(self._descriptor, data) :]
            except BlockingIOError:
                await self._until_ready(writing=True)
            except OSError as error:
                if error.errno not in _CLOSED:
                    raise
                return

    def resize(self, columns: int, rows: int) -> None:
        """Sets the size of a terminal."""
        if self._descriptor >= 0:
            fcntl.ioctl(self._descriptor, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def close(self) -> None:
        """For good; may be repeated."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            loop = asyncio.get_running_loop()
            loop.remove_reader(descriptor)
            loop.remove_writer(descriptor)
            os.close(descriptor)

    async def _until_ready(self, *, writing: bool) -> None:
        loop, descriptor = asyncio.get_running_loop(), self._descriptor
        ready = asyncio.Event()
        if writing:
            loop.add_writer(descriptor, ready.set)
        else:
            loop.add_reader(descriptor, ready.set)
        try:
            await ready.wait()
        finally:
            if self._descriptor == descriptor and writing:  # else it is closed, and the number may be another's
                loop.remove_writer(descriptor)
            elif self._descriptor == descriptor:
                loop.remove_reader(descriptor)


class Execution:
    """One program; made by `execute`."""

    def __init__(self, connection: socket.socket, stdin: Stream, stdout: Stream, stderr: Stream | None) -> None:
        self._connection = connection
        self.stdin, self.stdout, self.stderr = stdin, stdout, stderr
        """`stderr` is None with a terminal, which is `stdin` and `stdout` at once."""
        self._answers = bytearray()

    @property
    def terminal(self) -> bool:
        """Whether it has a terminal."""
        return self.stderr is None

    async def end_input(self) -> None:
        """A closed pipe; on a terminal, what the key Ctrl-D sends."""
        if self.terminal:
            await self.stdin.write(_END_OF_INPUT)
        else:
            self.stdin.close()

    async def wait(self) -> int:
        """Its exit code, 128 + n after a signal; 137 when the container's shim was lost."""
        answer = await self.answer()
        return int(answer.removeprefix("exited ")) if answer.startswith("exited ") else _LOST

    def close(self) -> None:
        """Lets go of it; a program that still runs is ended."""
        self._connection.close()
        for stream in (self.stdin, self.stdout, self.stderr):
            if stream is not None:
                stream.close()

    async def answer(self) -> str:
        """The shim's next line; empty when the shim is gone."""
        loop = asyncio.get_running_loop()
        while b"\n" not in self._answers:
            try:
                data = await loop.sock_recv(self._connection, _CHUNK)
            except ConnectionError:
                data = b""
            if not data:
                return ""
            self._answers += data
        line, _, self._answers = self._answers.partition(b"\n")
        return line.decode(errors="replace")


async def execute(
    instance: Path, argv: Sequence[str], *, terminal: bool, stdin: bool = True, environment: Sequence[str] = ()
) -> Execution:
    """Starts a program in the container instance whose directory is given.

    Args:
        instance: the instance's directory.
        argv: the program and its arguments.
        terminal: whether it gets a terminal, else three pipes.
        stdin: whether it has an input at all.
        environment: `NAME=value`, over what the container has.

    Raises:
        NotRunning: the container has ended.
        CannotExecute: the program is not there or is no program.
    """
    ours, theirs = _terminal() if terminal else _pipes()
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.setblocking(False)
    execution = Execution(connection, *ours)
    try:
        _connect(connection, instance)
        await _request(connection, theirs, ["tty" if terminal else "", str(len(argv)), *argv, *environment])
        _check(await execution.answer())
    except OSError as error:
        execution.close()
        raise NotRunning(str(error)) from error
    except BaseException:
        execution.close()
        raise
    finally:
        for descriptor in theirs:
            os.close(descriptor)
    if not stdin and not terminal:
        execution.stdin.close()
    return execution


async def drained(tasks: Sequence["asyncio.Task[None]"]) -> None:
    """Waits for readers of an ended program, but not for what it left in the background."""
    if tasks:
        _, left = await asyncio.wait(tasks, timeout=_DRAIN_SECONDS)
        for task in left:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _check(answer: str) -> None:
    if answer.startswith("failed "):
        raise CannotExecute(answer.removeprefix("failed "))
    if not answer:
        raise NotRunning("the container has ended")


def _connect(connection: socket.socket, instance: Path) -> None:
    if not sys.platform.startswith("linux"):
        connection.connect(str(instance / "exec"))
        return
    # an address has room for 107 bytes only: by way of the directory's descriptor any depth will do
    directory = os.open(instance, os.O_PATH | os.O_DIRECTORY)
    try:
        connection.connect(f"/proc/self/fd/{directory}/exec")
    finally:
        os.close(directory)


async def _request(connection: socket.socket, streams: Sequence[int], fields: Sequence[str]) -> None:
    body = b"\0".join(os.fsencode(text) for text in fields)
    socket.send_fds(connection, [len(body).to_bytes(4, "big")], list(streams))
    await asyncio.get_running_loop().sock_sendall(connection, body)


def _terminal() -> tuple[tuple[Stream, Stream, None], list[int]]:
    master, slave = pty.openpty()
    stream = Stream(master)
    return (stream, stream, None), [slave]


def _pipes() -> tuple[tuple[Stream, Stream, Stream], list[int]]:
    (stdin, to_stdin), (from_stdout, stdout), (from_stderr, stderr) = os.pipe(), os.pipe(), os.pipe()
    return (Stream(to_stdin), Stream(from_stdout), Stream(from_stderr)), [stdin, stdout, stderr]
