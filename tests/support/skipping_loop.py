"""An event loop in which nobody waits for time to pass, and no machine is too slow for a deadline."""

import asyncio
from selectors import DefaultSelector, SelectorKey


class _SkippingSelector(DefaultSelector):
    """Waits for what has no deadline only; every other wait is skipped, unless something is ready."""

    def __init__(self) -> None:
        super().__init__()
        self.skipped = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[SelectorKey, int]]:
        """What is ready; seconds that would be waited for are added to those that were skipped."""
        if timeout is None:
            return super().select()
        ready = super().select(0)
        if not ready:
            self.skipped += max(0.0, timeout)
        return ready


class SkippingLoop(asyncio.SelectorEventLoop):
    """Its clock stands while anything is to be done, and then goes on to the next moment that somebody waits for.

    For what waits for nothing but its own timers: no sockets, no threads.
    """

    def __init__(self) -> None:
        self._skipping = _SkippingSelector()
        super().__init__(self._skipping)

    def time(self) -> float:
        """Seconds that were skipped."""
        return self._skipping.skipped
