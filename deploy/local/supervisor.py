"""Keeps parts running: starts them, restarts what dies, gives up on what keeps dying, ends everything in order."""

import asyncio
import contextlib
import os
import signal
import subprocess
import time
from collections import defaultdict
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deploy.local import part as parts
from deploy.local import proc
from deploy.local.part import Part, PartFailedError
from deploy.local.state import RunningPart

_WATCH_SECONDS = 0.1
_FIRST_PAUSE_SECONDS = 0.2
_LONGEST_PAUSE_SECONDS = 5.0
_ONE_SHOT_SECONDS = 60.0
_LOG_LOOK_SECONDS = 60.0


@dataclass(frozen=True, kw_only=True)
class RestartPolicy:
    """When to stop believing that a restart helps."""

    limit: int = 8
    """Short lives in a row that are too many."""
    stable_seconds: float = 5.0
    """Having served for so long, a part has lived: its next death is the first again."""


@dataclass(kw_only=True)
class _Running:
    part: Part
    process: subprocess.Popen[bytes]
    served_since: float | None = None
    """Monotonic time; None while it starts."""
    short_lives: int = 0
    watch: asyncio.Task[None] | None = None


class Supervisor:
    """Runs parts as children of this process.

    Args:
        report: Takes one line for the person at the terminal.
        changed: Called when the set of running processes is another than before.
        policy: When to give up on a part.
    """

    def __init__(
        self,
        *,
        report: Callable[[str], None],
        changed: Callable[[], None] = lambda: None,
        policy: RestartPolicy | None = None,
    ) -> None:
        self._report = report
        self._changed = changed
        self._policy = policy or RestartPolicy()
        self._levels: defaultdict[int, list[_Running]] = defaultdict(list)
        self._failed: asyncio.Future[PartFailedError] | None = None

    @property
    def running(self) -> list[RunningPart]:
        """The parts' processes as they are now."""
        return [_describe(item) for item in self._everything()]

    async def start(self, *layer: Part, level: int = 0) -> None:
        """Start parts side by side and return when all serve. Parts of a higher level are stopped before them.

        Raises:
            PartFailedError: one did not come up; the others keep running until `stop`.
        """
        await together(*(self._start_one(part, self._levels[level]) for part in layer))

    async def bound_logs(self) -> None:
        """Keep the parts' logs from filling the disk; until cancelled."""
        while True:
            await asyncio.sleep(_LOG_LOOK_SECONDS)
            for item in self._everything():
                await asyncio.to_thread(parts.bound_log, item.part.log)

    async def failure(self) -> PartFailedError:
        """Wait until a part is beyond help; that part and why."""
        return await asyncio.shield(self._outcome())

    async def stop(self) -> None:
        """End everything, the highest level first. Nothing is left afterwards."""
        for level in sorted(self._levels, reverse=True):
            await asyncio.gather(*(self._end(item) for item in self._levels[level]))
        self._levels.clear()
        self._changed()

    def kill(self) -> None:
        """End everything now, by force. Blocks for a moment; may be called while `stop` runs."""
        everything = self._everything()
        for item in everything:
            if item.watch is not None:
                item.watch.cancel()
            if item.process.poll() is None:
                proc.send(item.process.pid, signal.SIGKILL)
        for item in everything:
            parts.end_group(item.process, item.part)

    def _everything(self) -> list[_Running]:
        return [item for level in sorted(self._levels) for item in self._levels[level]]

    async def _start_one(self, part: Part, members: list[_Running]) -> None:
        began = time.monotonic()
        item = _Running(part=part, process=parts.spawn(part))
        members.append(item)
        self._changed()
        await _await_ready(item)
        item.served_since = time.monotonic()
        self._report(f"  {part.name:<12} ready ({time.monotonic() - began:.1f} s)")
        item.watch = asyncio.create_task(self._watch(item), name=f"watch {part.name}")

    async def _watch(self, item: _Running) -> None:
        try:
            while True:
                await self._until_dead(item)
                await self._revive(item)
        except PartFailedError as error:
            self._give_up(error)
        except OSError as error:  # such as a full disk, or no room for another process
            self._give_up(PartFailedError(f"{item.part.name} died, and cannot be started again: {error}."))

    def _give_up(self, error: PartFailedError) -> None:
        outcome = self._outcome()
        if not outcome.done():
            outcome.set_result(error)

    async def _until_dead(self, item: _Running) -> None:
        if hasattr(os, "pidfd_open"):
            await proc.until_ended(item.process.pid)
            item.process.wait()
        while item.process.poll() is None:  # noqa: ASYNC110 - on macOS no event tells of a child's death
            await asyncio.sleep(_WATCH_SECONDS)

    async def _revive(self, item: _Running) -> None:
        """Restart a dead part on its own port, once nothing of its former self is left."""
        part = item.part
        while True:
            self._report(f"  {part.name:<12} died ({_cause(item.process.returncode)})\n{parts.tail(part.log, lines=5)}")
            self._count_death(item)
            await asyncio.to_thread(parts.end_group, item.process, part)
            await asyncio.sleep(self._pause(item.short_lives))
            began = time.monotonic()
            item.process = parts.spawn(part)
            self._changed()
            try:
                await _await_ready(item)
            except PartFailedError:
                proc.send(item.process.pid, signal.SIGKILL)
                item.process.wait()
                continue
            item.served_since = time.monotonic()
            self._report(f"  {part.name:<12} ready again ({time.monotonic() - began:.1f} s)")
            return

    def _count_death(self, item: _Running) -> None:
        served, item.served_since = item.served_since, None
        if served is not None and time.monotonic() - served >= self._policy.stable_seconds:
            item.short_lives = 0
            return
        item.short_lives += 1
        if item.short_lives > self._policy.limit:
            raise PartFailedError(
                f"{item.part.name} keeps dying: given up after {item.short_lives} times."
                f" Its log is {item.part.log}:\n{parts.tail(item.part.log)}"
            )

    @staticmethod
    def _pause(short_lives: int) -> float:
        """Back-off before the next try: none at first, so that a single kill is hardly felt."""
        if short_lives <= 1:
            return 0.0
        return float(min(_FIRST_PAUSE_SECONDS * 2 ** (short_lives - 2), _LONGEST_PAUSE_SECONDS))

    async def _end(self, item: _Running) -> None:
        if item.watch is not None:
            item.watch.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await item.watch
        await asyncio.to_thread(parts.stop, item.process, item.part)

    def _outcome(self) -> asyncio.Future[PartFailedError]:
        if self._failed is None:
            self._failed = asyncio.get_running_loop().create_future()
        return self._failed


async def together(*steps: Coroutine[Any, Any, None]) -> None:
    """Run steps side by side; the first failure cancels the others and is raised as itself, not in a group."""
    try:
        async with asyncio.TaskGroup() as group:
            for step in steps:
                group.create_task(step)
    except BaseExceptionGroup as failures:
        raise failures.exceptions[0] from None


async def run_once(name: str, argv: tuple[str, ...], *, log: Path, env: dict[str, str], cwd: Path) -> None:
    """Run a program that ends by itself.

    Raises:
        PartFailedError: it fails or takes longer than a minute.
    """
    step = Part(name=name, argv=argv, log=log, env=env, cwd=cwd, ready=lambda: True)
    process = parts.spawn(step)
    try:
        deadline = time.monotonic() + _ONE_SHOT_SECONDS
        while process.poll() is None:
            if time.monotonic() > deadline:
                raise PartFailedError(f"{name} takes too long.\n{parts.tail(log)}")
            await asyncio.sleep(parts.POLL_SECONDS)
    finally:
        parts.end_group(process, step)
    if process.returncode != 0:
        raise PartFailedError(f"{name} failed ({_cause(process.returncode)}).\n{parts.tail(log)}")


async def _await_ready(item: _Running) -> None:
    """Wait without blocking the loop, nor holding a thread between two looks, so that a cancel takes effect."""
    part, process = item.part, item.process
    deadline = time.monotonic() + part.ready_seconds
    while not await asyncio.to_thread(part.ready):
        if process.poll() is not None:
            raise PartFailedError(f"{part.name} ended while starting.\n{parts.tail(part.log)}")
        if time.monotonic() > deadline:
            raise PartFailedError(f"{part.name} does not serve in {part.ready_seconds:.0f} s.\n{parts.tail(part.log)}")
        await asyncio.sleep(parts.POLL_SECONDS)
    if process.poll() is not None:
        # Somebody else answered on its port.
        raise PartFailedError(f"{part.name} ended while starting.\n{parts.tail(part.log)}")


def _cause(code: int | None) -> str:
    if code is not None and code < 0:
        return f"signal {signal.Signals(-code).name}"
    return f"exit {code}"


def _describe(item: _Running) -> RunningPart:
    pid = item.process.pid
    return RunningPart(
        name=item.part.name,
        pid=pid,
        started=proc.start_time(pid) or "",
        port=item.part.port,
        metrics_port=item.part.metrics_port,
        log=str(item.part.log),
    )
