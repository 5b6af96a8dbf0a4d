"""Container instances: one run of one container, in a directory that tells all about it after any crash."""

import asyncio
import contextlib
import hashlib
import os
import signal
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from deploy.local import proc
from deploy.local.cluster.kubelet import shim
from deploy.local.cluster.machinery.objects import now
from deploy.local.cluster.pki import write_private

_POLL_SECONDS = 0.01
_LOST = 137


@dataclass(frozen=True, slots=True)
class Config:
    """What the shim executes."""

    argv: list[str]
    environment: dict[str, str] = field(repr=False)  # may hold secrets
    working_directory: Path

    def encode(self) -> bytes:
        """The shim's format: fields separated by NUL."""
        entries = [f"{key}={value}" for key, value in self.environment.items()]
        fields = [str(self.working_directory), str(len(self.argv)), *self.argv, *entries]
        return b"\0".join(os.fsencode(text) for text in fields)


@dataclass(frozen=True, slots=True)
class Exit:
    """How an instance ended."""

    code: int
    signal: int
    finished_at: datetime
    problem: str = ""
    """Why the program could not be executed; empty when it ran."""
    out_of_memory: bool = False

    @property
    def reason(self) -> str:
        """The word in `terminated.reason`."""
        if self.problem:
            return "StartError"
        if self.out_of_memory:
            return "OOMKilled"
        return "Completed" if self.code == 0 else "Error"


class Instance:
    """One run; everything is read from the directory, so an object can be made anew at any time."""

    def __init__(self, directory: Path, attempt: int) -> None:
        self.directory, self.attempt = directory, attempt
        self._spawned: tuple[int, str] | None = None

    @property
    def id(self) -> str:
        """The container ID, stable for the instance."""
        return hashlib.sha256(str(self.directory).encode()).hexdigest()

    @property
    def log(self) -> Path:
        """The file with what it wrote, in the CRI log format."""
        return self.directory / "log"

    def claim(self, config: Config) -> None:
        """Writes the intent to run; nothing runs yet. It lasts when the shim has claimed the directory."""
        self.directory.mkdir(mode=0o700, parents=True)
        write_private(self.directory / "config", config.encode())

    def record_success(self, began: datetime) -> None:
        """What a shim records of a program that ended well and printed nothing, now."""
        for name, text in (("running", _nanoseconds(began)), ("exit", f"0 0 {_nanoseconds(now())} ")):
            temporary = self.directory / f".{name}.new"
            temporary.write_text(str(text))
            temporary.replace(self.directory / name)

    async def start(self, spawn: Callable[[Path], Awaitable[int]]) -> datetime | None:
        """Makes sure that the program runs or has run, once; when it began, or None if it could not be executed.

        Args:
            spawn: Starts a shim for a directory and answers its pid.
        """
        while True:
            began = self._read("running")
            if began:
                return _moment(int(began))
            if self._read("exit"):
                return None
            if not self._shim_alive() and not self._read("started"):
                pid = await spawn(self.directory)  # again after a crash: the shims decide which one goes on
                self._spawned = pid, shim.start_ticks(pid)
            elif not self._shim_alive():
                return None  # its shim is gone before the program began
            await asyncio.sleep(_POLL_SECONDS)

    async def wait(self) -> Exit:
        """Waits for the end. An instance whose shim is gone without a record counts as killed."""
        pid = self._shim_pid()
        if pid:
            await _process_end(pid)
        ended = self.exit
        if ended is None:
            self.signal(signal.SIGKILL)
            write_private(self.directory / "exit", f"{_LOST} 0 {_nanoseconds(now())} ".encode())
            ended = self.exit
        if ended is None:
            raise RuntimeError(f"the exit record of {self.directory} does not stay")
        return ended

    @property
    def exit(self) -> Exit | None:
        """How it ended, None while it has not."""
        text = self._read("exit")
        if not text:
            return None
        code, number, finished, problem = text.split(" ", 3)
        out_of_memory = (self.directory / "oom").exists()
        return Exit(int(code), int(number), _moment(int(finished)), problem, out_of_memory)

    @property
    def running(self) -> bool:
        """Whether its program runs."""
        return bool(self._read("running")) and self.exit is None and self._shim_alive()

    def config(self) -> Config | None:
        """What it was claimed with, None when the claim was never finished."""
        try:
            directory, count, *rest = (self.directory / "config").read_bytes().split(b"\0")
        except OSError:
            return None
        texts = [os.fsdecode(item) for item in rest]
        pairs = [entry.partition("=")[::2] for entry in texts[int(count) :] if entry]
        return Config(texts[: int(count)], dict(pairs), Path(os.fsdecode(directory)))

    def kill_for_memory(self) -> None:
        """Ends it as the kernel does when its memory runs out."""
        (self.directory / "oom").touch()
        self.signal(signal.SIGKILL)

    def signal(self, number: signal.Signals) -> None:
        """Signals the container's first process, if it is still that process."""
        pid, _, ticks = self._read("process").partition(" ")
        if pid and shim.start_ticks(int(pid)) == ticks and self.exit is None:
            with contextlib.suppress(ProcessLookupError):
                if number is signal.SIGKILL and not self._shim_alive():
                    os.killpg(int(pid), number)
                else:
                    os.kill(int(pid), number)

    def _shim_pid(self) -> int:
        pid, _, ticks = self._read("started").partition(" ")
        return int(pid) if pid and shim.start_ticks(int(pid)) == ticks else 0

    def _shim_alive(self) -> bool:
        if self._spawned is not None:
            pid, ticks = self._spawned
            if ticks and shim.start_ticks(pid) == ticks:
                return True
        return bool(self._shim_pid())

    def _read(self, name: str) -> str:
        try:
            return (self.directory / name).read_text()
        except OSError:
            return ""


def instances(container_directory: Path) -> list[Instance]:
    """The instances of a container, oldest first."""
    if not container_directory.is_dir():
        return []
    attempts = sorted(int(entry.name) for entry in container_directory.iterdir() if entry.name.isdigit())
    return [Instance(container_directory / str(attempt), attempt) for attempt in attempts]


async def _process_end(pid: int) -> None:
    if not hasattr(os, "pidfd_open"):
        while shim.start_ticks(pid):  # noqa: ASYNC110  another process: nothing here could set an event
            await asyncio.sleep(_POLL_SECONDS * 5)
        return
    await proc.until_ended(pid)


def _nanoseconds(moment: datetime) -> int:
    return int(moment.timestamp() * 1e9)


def _moment(nanoseconds: int) -> datetime:
    return datetime.fromtimestamp(nanoseconds / 1e9, UTC)
