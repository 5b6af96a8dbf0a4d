"""Lets pods start a few at a time, in the order in which they came.

Nodes have processors of their own; these share the machine's. Twenty pods that start on it together are all ready when
the last one is, while in turns half of them are by half of that time, and none later for it.
"""

import asyncio
import contextlib


class Turns:
    """Of all pods of the fleet.

    Args:
        at_once: Pods that may be starting.
        seconds: How long one may keep its turn: what waits for something else does not hold up the others.
    """

    def __init__(self, at_once: int, seconds: float = 1.0) -> None:
        self._places = asyncio.Semaphore(at_once)
        self._seconds = seconds

    def one(self) -> "Turn":
        """A pod's turn, which has not begun."""
        return Turn(self._places, self._seconds)


class Turn:
    """One pod's; made by `Turns.one`."""

    def __init__(self, places: asyncio.Semaphore, seconds: float) -> None:
        self._places, self._seconds = places, seconds
        self._timer: asyncio.TimerHandle | None = None

    async def begin(self, unless: asyncio.Event) -> None:
        """Waits for it, or until `unless` is set."""
        place, off = asyncio.create_task(self._places.acquire()), asyncio.create_task(unless.wait())
        try:
            await asyncio.wait((place, off), return_when=asyncio.FIRST_COMPLETED)
        finally:
            off.cancel()
            place.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                if await place:
                    self._timer = asyncio.get_running_loop().call_later(self._seconds, self.end)

    def end(self) -> None:
        """The next one may start; may be repeated."""
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()
            self._places.release()
