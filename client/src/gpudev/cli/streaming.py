"""Following a run: its output here, this side's input and Ctrl-C there, over as many sessions as it takes."""

import asyncio
import contextlib
import os
import signal
import stat
import sys
import threading
import uuid
from asyncio.subprocess import PIPE, Process
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from gpudev.cli.ending import CommandError, ExitCode
from gpudev.cli.keyfile import KeyFile, config_folder
from gpudev.cli.output import tell
from gpudev.cli.pod import MARK, SCRIPT, Run, news_of
from gpudev.models import Job

_PIECE_BYTES = 1 << 20
_HELD_INPUT_BYTES = 4 << 20
_RENEWAL_SECONDS = 30.0
_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 0.5, 10.0


@dataclass(frozen=True)
class End:
    """How a command ended."""

    code: int
    why: str = ""
    job: Job | None = None
    """When it was its job that told: then the job is over."""


class Cancelled(Exception):
    """Ctrl-C was pressed twice."""


class Following:
    """One program's following of a run.

    Args:
        run: That is followed.
        look: The job as it is now; None while that cannot be known.
    """

    def __init__(self, run: Run, look: Callable[[], Awaitable[Job | None]]) -> None:
        self._run, self._look = run, look
        self._owner = uuid.uuid4().hex
        self._number = 0
        self.received = 0
        """Bytes of the output."""
        self._end: End | None = None
        self._told_lost = False
        self._presses = 0
        self._interrupt_known = False
        self._input = _Input()
        self._to_say = asyncio.Event()
        self._words: list[str] = []

    async def end(self) -> End:
        """Follow it to its end.

        Raises:
            Cancelled: Ctrl-C was pressed twice.
            CommandError: It cannot be followed.
        """
        loop = asyncio.get_running_loop()
        following = asyncio.create_task(self._follow())
        renewing = asyncio.create_task(_renew_key())
        with contextlib.suppress(NotImplementedError):  # Windows: Ctrl-C leaves it running
            loop.add_signal_handler(signal.SIGINT, self._press, following)
        try:
            return await following
        except asyncio.CancelledError:
            if self._presses > 1:
                raise Cancelled from None
            raise
        finally:
            renewing.cancel()
            with contextlib.suppress(NotImplementedError):
                loop.remove_signal_handler(signal.SIGINT)

    def _press(self, following: "asyncio.Task[End]") -> None:
        self._presses += 1
        if self._presses > 1:
            following.cancel()
        else:
            tell("Ctrl-C goes to the command. Once more cancels the job.")
            self._to_say.set()

    async def _follow(self) -> End:
        pause = _FIRST_PAUSE_SECONDS
        while True:
            before = self.received
            if end := await self._session():
                return end
            job = await self._look()
            if job is not None and job.ended:
                return _end_of(job)
            if job is not None:
                self._check_refusal()
            pause = _FIRST_PAUSE_SECONDS if self.received > before else min(2 * pause, _LONGEST_PAUSE_SECONDS)
            if not self._told_lost:
                self._told_lost = True
                tell("The connection to the job is lost. The command goes on; it is tried again.")
            await asyncio.sleep(pause)

    def _check_refusal(self) -> None:
        """What trying again does not mend."""
        said = "\n".join(self._words)
        if "Permission denied" in said or "Host key verification failed" in said:
            step = f"`gpudev users add GITHUB_USER {self._run.job_id[:8]}`, then `gpudev run --attach` it."
            raise CommandError(f"SSH refuses: {self._words[-1]}", ExitCode.FORBIDDEN, step)

    async def _session(self) -> End | None:
        """One session; how the command has ended, if that was told."""
        self._number += 1
        self._words = []
        arguments = (self._owner, str(self._number), str(self.received))
        process = await asyncio.create_subprocess_exec(
            *self._run.session("attach", *arguments), stdin=PIPE, stdout=PIPE, stderr=PIPE, limit=_PIECE_BYTES
        )
        self._input.begin_session()
        speaking = asyncio.create_task(self._speak(process))
        hearing = asyncio.create_task(self._hear(process))
        try:
            await self._print(process)
            await hearing
            return self._end if await process.wait() == 0 else None
        finally:
            for task in (speaking, hearing):
                task.cancel()
            await asyncio.gather(speaking, hearing, return_exceptions=True)
            with contextlib.suppress(ProcessLookupError):
                process.kill()

    async def _print(self, process: Process) -> None:
        output = process.stdout
        if output is None:
            raise RuntimeError("the session has no output")
        try:
            await output.readuntil(MARK)
        except (asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            return
        if self._told_lost:
            self._told_lost = False
            tell("Connected again.")
        while data := await output.read(_PIECE_BYTES):
            # in a thread: who reads it may be slow, and Ctrl-C is to be heard meanwhile
            await asyncio.to_thread(write_output, data)
            self.received += len(data)

    async def _hear(self, process: Process) -> None:
        if process.stderr is None:
            raise RuntimeError("the session has no standard error")
        while line := await process.stderr.readline():
            match news_of(line):
                case ["exit", code, *why]:
                    self._end = End(int(code), " ".join(why))
                case ["input", size, state]:
                    self._input.take_told(int(size), is_open=state == "open", wake=self._to_say.set)
                    self._to_say.set()
                case ["interrupted"]:
                    self._interrupt_known = True
                case ["taken"]:
                    step = "Only one is attached to a run at a time."
                    raise CommandError("Another `gpudev run --attach` has come", ExitCode.STATE, step)
                case ["unsent"]:
                    step = f"`gpudev cancel {self._run.job_id[:8]}`, and run it anew."
                    raise CommandError("The run's files were never sent whole", ExitCode.STATE, step)
                case _:
                    self._words.append(line.decode(errors="replace").strip())

    async def _speak(self, process: Process) -> None:
        to = process.stdin
        if to is None:
            raise RuntimeError("the session has no input")
        interrupted = False
        with contextlib.suppress(ConnectionError):
            to.write(SCRIPT)
            while True:
                await to.drain()
                self._to_say.clear()
                if self._presses and not interrupted and not self._interrupt_known:
                    interrupted = True
                    to.write(b"int\n")
                to.write(self._input.next_frame())
                await self._to_say.wait()


class _Input:
    """This program's standard input, held until the job is known to have it."""

    def __init__(self) -> None:
        self._held = bytearray()
        self._base: int | None = None
        """Of the command's input: what it had before this program came."""
        self._known = 0
        self._ended = False
        self._is_open = False
        self._waits = True
        """For the answer to a frame, or for a session's first word."""
        self._room = threading.Event()
        self._reader: threading.Thread | None = None

    def begin_session(self) -> None:
        """What was sent and not told of is to be sent again, from where the session says."""
        self._waits = True

    def take_told(self, size: int, *, is_open: bool, wake: Callable[[], object]) -> None:
        """The job has so many bytes, and takes more or does not."""
        self._base = size if self._base is None else self._base
        done = size - self._base - self._known
        del self._held[:done]
        self._known += done
        self._is_open, self._waits = is_open, False
        self._room.set()
        if is_open and self._reader is None and has_input():
            loop = asyncio.get_running_loop()
            self._reader = threading.Thread(target=self._read, args=(loop, wake), daemon=True)
            self._reader.start()

    def next_frame(self) -> bytes:
        """What to send now, if anything; its answer is waited for."""
        if self._waits or not self._is_open:
            return b""
        piece = bytes(self._held[:_PIECE_BYTES])
        if piece:
            self._waits = True
            return b"data %d\n%b" % (len(piece), piece)
        if self._ended:
            self._waits = True
            return b"end\n"
        return b""

    def _read(self, loop: asyncio.AbstractEventLoop, wake: Callable[[], object]) -> None:
        with contextlib.suppress(OSError, RuntimeError):  # the loop has ended
            while data := os.read(0, 1 << 16):
                loop.call_soon_threadsafe(self._add, data, wake)
                while len(self._held) > _HELD_INPUT_BYTES:
                    self._room.wait()
                    self._room.clear()
            loop.call_soon_threadsafe(self._finish, wake)

    def _add(self, data: bytes, wake: Callable[[], object]) -> None:
        self._held += data
        wake()

    def _finish(self, wake: Callable[[], object]) -> None:
        self._ended = True
        wake()


def has_input() -> bool:
    """Whether somebody gives this program an input: a pipe, a file, or a terminal of which it is in the foreground."""
    try:
        mode = os.fstat(0).st_mode
        if os.isatty(0):
            return os.tcgetpgrp(0) == os.getpgrp()
    except (OSError, AttributeError):
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISREG(mode) or stat.S_ISSOCK(mode)


def write_output(data: bytes) -> None:
    """To standard output, at once."""
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()


def _end_of(job: Job) -> End:
    """As the job tells it, when it is over."""
    why = job.failure_reason or job.status_reason or ""
    return End(job.exit_code if job.exit_code is not None else ExitCode.REFUSED, why, job)


async def _renew_key() -> None:
    """A run may be longer than its key's life."""
    while True:
        with contextlib.suppress(CommandError, OSError):
            await asyncio.to_thread(KeyFile(config_folder()).current)
        await asyncio.sleep(_RENEWAL_SECONDS)
