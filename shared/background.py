"""Background loops that can be woken, are watched, and cannot hang unseen."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, TypeVar

import structlog
from prometheus_client import Counter, Gauge

from shared.clock import Stopwatch
from shared.errors import Unavailable

log = structlog.get_logger(__name__)

ItemT = TypeVar("ItemT")
_TURN_ITEMS = 20
"""Each takes some 50 µs: as many hold up nobody for longer than a request takes anyway."""

_turns = Counter("gpudev_loop_turns", "Turns of a background loop", ["loop", "outcome"])
_last_turn = Gauge("gpudev_loop_last_turn_timestamp_seconds", "End of the last good turn", ["loop"])
_wedged = Gauge("gpudev_loop_wedged", "1: it has had no good turn for longer than it may be without", ["loop"])


async def cancel_all(tasks: Iterable[asyncio.Task[Any]]) -> None:
    """Cancel tasks and wait until all have ended.

    Cancels again what goes on: in Python 3.11 `asyncio.wait_for` can lose a cancellation that comes as its future ends.
    """
    pending = {task for task in tasks if not task.done()}
    while pending:
        for task in pending:
            task.cancel()
        _, pending = await asyncio.wait(pending, timeout=0.5)


class Abandoned(Exception):
    """What was waited for was cancelled by somebody else."""


@contextmanager
def outliving_others() -> Iterator[None]:
    """Tell a cancellation of this very task, which ends it, from one of what it waits for, which is a failure.

    A library that closes a connection cancels its own tasks and futures, and whoever waits for one gets that error.

    Raises:
        Abandoned: In place of a CancelledError that is not this task's.
    """
    try:
        yield
    except asyncio.CancelledError as error:
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        raise Abandoned from error


async def in_turns(items: Iterable[ItemT]) -> AsyncIterator[ItemT]:
    """The items; between every few of them whoever else waits in the loop has a turn.

    For work on many things that never waits for anything: until it ends no request would be served.
    """
    for number, item in enumerate(items, start=1):
        yield item
        if number % _TURN_ITEMS == 0:
            await asyncio.sleep(0)


async def each_in_turn(works: Iterable[Callable[[], Awaitable[bool | None]]]) -> bool:
    """Do all of these, also what comes after one that fails, which would starve for as long as that does.

    Returns:
        Whether one of them has said that there is more to do.

    Raises:
        Exception: The first failure, when all have had their turn.
    """
    more = False
    failure: Exception | None = None
    for work in works:
        try:
            more = bool(await work()) or more
        except Exception as error:  # noqa: BLE001 - it is raised in the end
            failure = failure or error
    if failure is not None:
        raise failure
    return more


async def wait_until_set(event: asyncio.Event, seconds: float) -> None:
    """Return when an event is set, or after so long; at once when that is over already."""
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()


class Loop:
    """Runs `turn` when woken, and every `period_seconds` anyway; a turn that fails or hangs is logged and repeated.

    Args:
        name: In logs, metrics and health.
        turn: One pass. True: there is more to do, run again at once.
        period_seconds: Rest between turns when nobody wakes it.
        turn_seconds: A turn that takes longer is cancelled and counts as failed.
        pause_seconds: At least between two turns, so that what comes in a burst is done together.
        at_end: Called when it is cancelled.
        stale_seconds: Health calls the loop wedged when no turn ended well for so long.
        stopwatch: By which it is.
    """

    def __init__(
        self,
        name: str,
        turn: Callable[[], Awaitable[bool | None]],
        *,
        period_seconds: float = 1.0,
        pause_seconds: float = 0.0,
        turn_seconds: float = 30.0,
        stale_seconds: float | None = None,
        at_end: Callable[[], None] | None = None,
        stopwatch: Stopwatch = time.monotonic,
    ) -> None:
        self.name = name
        self._turn = turn
        self._period_seconds = period_seconds
        self._pause_seconds = pause_seconds
        self._turn_seconds = turn_seconds
        self._stale_seconds = stale_seconds or max(10.0, 5 * period_seconds)
        self._at_end = at_end
        self._woken = asyncio.Event()
        self._mended = asyncio.Event()
        self._stopwatch = stopwatch
        self._last_good = stopwatch()
        self._error: str | None = None

    def wake(self) -> None:
        """Run a turn soon; calls during a turn lead to one more. After a failed turn its back-off is kept."""
        self._woken.set()

    def obstacle_gone(self) -> None:
        """What turns fail for is over, such as a broken connection: run one now, without the rest of a back-off."""
        self._mended.set()
        self._woken.set()

    def fault(self) -> str | None:
        """Why health should call this loop wedged; None when it is well."""
        age = self._stopwatch() - self._last_good
        if age <= self._stale_seconds:
            return None
        return f"{self.name}: no good turn for {age:.0f} s ({self._error or 'still in one'})"

    async def run(self) -> None:
        """Turn until cancelled."""
        _wedged.labels(self.name).set_function(lambda: float(self.fault() is not None))
        try:
            await self._turn_for_ever()
        finally:
            _wedged.remove(self.name)
            if self._at_end is not None:
                self._at_end()

    async def _turn_for_ever(self) -> None:
        failures = 0
        while True:
            self._woken.clear()
            self._mended.clear()
            more = False
            try:
                with outliving_others():
                    async with asyncio.timeout(self._turn_seconds):
                        more = bool(await self._turn())
                failures = 0
                self._succeeded()
            except Exception as error:  # noqa: BLE001 - a loop outlives whatever its turns raise
                failures += 1
                self._failed(error, failures)
            if more:
                await asyncio.sleep(0)
            else:
                await self._rest(failures)

    async def _rest(self, failures: int) -> None:
        """Pause, back-off and period all count from the end of the turn: the longest is the rest."""
        clock = asyncio.get_running_loop().time
        ended = clock()
        await asyncio.sleep(self._pause_seconds)
        if failures:
            back_off = min(5.0, 0.1 * 2 ** min(failures, 10))  # the power of a long outage would be no float
            await wait_until_set(self._mended, ended + back_off - clock())
        await wait_until_set(self._woken, ended + self._period_seconds - clock())

    def _succeeded(self) -> None:
        self._error = None
        self._last_good = self._stopwatch()
        _turns.labels(self.name, "good").inc()
        _last_turn.labels(self.name).set_to_current_time()

    def _failed(self, error: Exception, failures: int) -> None:
        expected = isinstance(error, Unavailable | TimeoutError)
        self._error = type(error).__name__
        _turns.labels(self.name, "failed").inc()
        context = error.context if isinstance(error, Unavailable) else {}
        log.warning(
            "loop_turn_failed",
            loop=self.name,
            error=type(error).__name__,
            failures=failures,
            context=context,
            exc_info=None if expected else error,
        )
