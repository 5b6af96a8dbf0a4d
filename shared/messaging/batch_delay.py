"""How long to let events gather between two batches: pure."""

_SECONDS_AN_EVENT = 0.01
_LONGEST_SECONDS = 0.2


def batch_delay_seconds(events: int) -> float:
    """Seconds to wait after a batch of so many events before the next one is taken.

    A batch costs a commit, a flush of the stream and a dozen round trips whatever its size. Below 100 a second the
    wait shrinks to nothing; above, it grows to its bound, and the machine serves requests in place of small batches.
    """
    return min(_LONGEST_SECONDS, _SECONDS_AN_EVENT * events) if events > 1 else 0.0
