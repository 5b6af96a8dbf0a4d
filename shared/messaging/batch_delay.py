"""How long to let events gather between two batches: arithmetic over what came of late, no sleeping."""

import time

from shared.clock import Stopwatch

_SECONDS_AN_EVENT = 0.01
_LONGEST_SECONDS = 0.2
_AT_ONCE_A_SECOND = 100.0


class BatchDelay:
    """Says how long to wait after each batch of events before the next one is taken.

    A batch costs a commit, a flush of the stream and a dozen round trips whatever its size. As long as fewer than 100
    events a second come, what comes is taken at once, a burst of up to 100 after a calm second too: who submits twenty
    jobs need not wait for those to gather that come behind them. Above, the wait grows with the batch to its bound, and
    the machine serves requests in place of small batches.

    Args:
        stopwatch: Tells what is of late.
    """

    def __init__(self, stopwatch: Stopwatch = time.monotonic) -> None:
        self._stopwatch = stopwatch
        self._at_once = _AT_ONCE_A_SECOND
        """Events that may still be taken without a wait."""
        self._counted_at = stopwatch()

    def seconds_after(self, events: int) -> float:
        """Seconds to wait after a batch of so many events, which is counted."""
        now = self._stopwatch()
        gained = (now - self._counted_at) * _AT_ONCE_A_SECOND
        self._counted_at = now
        self._at_once = min(_AT_ONCE_A_SECOND, self._at_once + gained)
        if events <= max(1, self._at_once):
            self._at_once = max(0.0, self._at_once - events)
            return 0.0
        self._at_once = 0.0
        return min(_LONGEST_SECONDS, _SECONDS_AN_EVENT * events)
