"""The one loop for work that lies in rows: claims rows that are due, works each under a lease, gives them back.

Exactly one replica works a row at a time. The lease is short, so that the rows of a killed process are soon another's;
it is renewed while the work goes on, and the work is cancelled before the lease can be another's. So what a pass sends
outside is never sent by two at once, and what it writes is guarded by the row's revision or lease all the same.
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from datetime import timedelta
from functools import partial
from typing import Any, Generic, Protocol, TypeVar
from uuid import UUID, uuid4

import structlog
from prometheus_client import Counter

from shared.background import Loop, cancel_all, outliving_others
from shared.errors import Unavailable

log = structlog.get_logger(__name__)

LEASE = timedelta(seconds=8)
"""Work of a process that was killed goes on within 10 s."""
_RENEWALS = 4
"""In the time of a lease."""
_failed_passes = Counter("gpudev_passes_failed", "Passes over a row that failed or were cut off", ["worker", "error"])

RowT = TypeVar("RowT")
ResultT = TypeVar("ResultT")


class Budget:
    """The time of one pass: no call in it may take more than what is left, so that its steps cannot add up past it.

    Args:
        seconds: For the whole pass.
    """

    def __init__(self, seconds: float) -> None:
        self._ends_at = asyncio.get_running_loop().time() + seconds

    @property
    def left_seconds(self) -> float:
        """Negative when it is used up."""
        return self._ends_at - asyncio.get_running_loop().time()

    def call(self, seconds: float, *, leaving_seconds: float = 0.0) -> asyncio.Timeout:
        """Bounds one call to the outside: `async with budget.call(2.0): ...` raises TimeoutError when it is over.

        Args:
            seconds: The call's own limit.
            leaving_seconds: Kept back for what must still be done after it; a call that can be done without is cut
                short, or not made, where this is all that is left.
        """
        return asyncio.timeout(max(0.0, min(seconds, self.left_seconds - leaving_seconds)))


class LeaseLost(Exception):
    """Another has the row, or may have it before long; what was under way was cancelled."""


class LeasedRows(Protocol[RowT, ResultT]):
    """The rows of one kind of work: how they are claimed, what is done with one, how it is given back."""

    async def claim(self, worker: UUID, lease: timedelta, limit: int) -> Sequence[RowT]:
        """Lease rows that are due and nobody's, most urgent first."""

    async def renew(self, row: RowT, worker: UUID, lease: timedelta) -> bool:
        """Hold the row longer; False when it is another's."""

    async def work(self, row: RowT, budget: Budget) -> ResultT:
        """One pass: bring the row as far as it gets now. May be cancelled at any await, and done again by another."""

    async def give_back(self, row: RowT, worker: UUID, result: ResultT) -> None:
        """End the lease; the pass says when the row is due again."""

    async def retry(self, row: RowT, worker: UUID) -> None:
        """End the lease after a pass that failed; the row is due again after a pause."""

    async def hand_over(self, row: RowT, worker: UUID) -> None:
        """End the lease of a pass that was cut off because this process stops; the row is due at once."""


async def hold(
    renew: Callable[[], Awaitable[bool]], work: Coroutine[Any, Any, ResultT], *, lease: timedelta = LEASE
) -> ResultT:
    """Do work under a lease that was just taken, renewing it meanwhile.

    Args:
        renew: Holds the row for another `lease`; False when it is another's.
        work: Cancelled before the lease can be another's.
        lease: How long the row is held without a renewal.

    Raises:
        LeaseLost: It was.
    """
    lost = asyncio.Event()
    working = asyncio.create_task(work)
    renewing = asyncio.create_task(_renew(renew, lost, working, lease.total_seconds()))
    try:
        return await working
    except asyncio.CancelledError:
        if lost.is_set():
            raise LeaseLost from None
        raise
    finally:
        await cancel_all([renewing, working])


async def _renew(
    renew: Callable[[], Awaitable[bool]], lost: asyncio.Event, working: asyncio.Task[Any], lease_seconds: float
) -> None:
    now = asyncio.get_running_loop().time
    pause = lease_seconds / _RENEWALS
    held_until = now() + lease_seconds
    # the work is ended a pause before the lease is, so that what it has sent last is over by then
    while now() + pause < held_until:
        await asyncio.sleep(pause)
        asked_at = now()
        try:
            with outliving_others():
                async with asyncio.timeout(pause):
                    held = await renew()
        except Exception as error:  # noqa: BLE001 - whatever it is: without a renewal the work ends before the lease
            log.warning("lease_not_renewed", error=type(error).__name__)
        else:
            held_until = asked_at + lease_seconds if held else asked_at
    lost.set()
    working.cancel()


class LeasedWorker(Generic[RowT, ResultT]):
    """Works rows, several at once.

    Args:
        name: Of the loop, in logs, metrics and health.
        rows: What it works.
        at_once: Rows that this replica works at the same time.
        budget_seconds: For one pass; a pass that needs longer is cut off and counts as failed.
        expected: Errors of the outside world beside `Unavailable` that are told without a trace.
        lease: How long a row is held without a renewal.
        period_seconds: Between two looks when nobody wakes it.
    """

    def __init__(
        self,
        name: str,
        rows: LeasedRows[RowT, ResultT],
        *,
        at_once: int,
        budget_seconds: float,
        expected: tuple[type[Exception], ...] = (),
        lease: timedelta = LEASE,
        period_seconds: float = 1.0,
    ) -> None:
        self._name = name
        self._rows = rows
        self._at_once = at_once
        self._budget_seconds = budget_seconds
        self._expected = (Unavailable, TimeoutError, LeaseLost, *expected)
        self._lease = lease
        self._working: set[asyncio.Task[None]] = set()
        self.loop = Loop(name, self.turn, period_seconds=period_seconds, turn_seconds=15.0)

    def wake(self) -> None:
        """Look for rows soon."""
        self.loop.wake()

    async def turn(self) -> bool:
        """Claim what is due and begin to work it; True when there may be more."""
        free = self._at_once - len(self._working)
        if free <= 0:
            return False  # each pass that ends wakes the loop
        worker = uuid4()
        rows = await self._rows.claim(worker, self._lease, free)
        for row in rows:
            task = asyncio.create_task(self._work(row, worker))
            self._working.add(task)
            task.add_done_callback(self._done)
        return len(rows) == free

    async def work_due(self) -> None:
        """Claim what is due and work it to the end of its pass."""
        await self.turn()
        begun = list(self._working)
        if begun:
            await asyncio.wait(begun)
        for task in begun:
            task.result()

    async def close(self) -> None:
        """Stop working and hand the rows over; what was begun is finished by the next worker, at once."""
        await cancel_all(self._working)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._working.discard(task)
        self.loop.wake()

    async def _work(self, row: RowT, worker: UUID) -> None:
        renew = partial(self._rows.renew, row, worker, self._lease)
        try:
            with outliving_others():
                result = await hold(renew, self._pass(row), lease=self._lease)
        except asyncio.CancelledError:
            await self._end_lease(self._rows.hand_over(row, worker))
            raise
        except Exception as error:  # noqa: BLE001 - one row that fails must not stop the others
            self._failed(error)
            await self._end_lease(self._rows.retry(row, worker))
        else:
            await self._end_lease(self._rows.give_back(row, worker, result))

    async def _pass(self, row: RowT) -> ResultT:
        async with asyncio.timeout(self._budget_seconds):
            return await self._rows.work(row, Budget(self._budget_seconds))

    async def _end_lease(self, written: Awaitable[None]) -> None:
        try:
            await written
        except Unavailable:
            log.warning("lease_not_given_back", worker=self._name)  # it ends by itself

    def _failed(self, error: Exception) -> None:
        kind = type(error).__name__
        _failed_passes.labels(self._name, kind).inc()
        log.warning(
            "pass_failed",
            worker=self._name,
            error=kind,
            context=error.context if isinstance(error, Unavailable) else {},
            exc_info=None if isinstance(error, self._expected) else error,
        )
