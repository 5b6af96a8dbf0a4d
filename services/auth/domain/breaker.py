"""A circuit breaker: a dependency that keeps failing is left alone for a while, so that callers do not wait."""


class CircuitBreaker:
    """Closed until `threshold` calls in a row have failed; then one call per `rest_seconds` is let through to try.

    A trial that never reports back (its caller went away) costs one rest and no more.

    Args:
        threshold: Failures in a row that open it.
        rest_seconds: Between trials while it is open.
    """

    def __init__(self, *, threshold: int, rest_seconds: float) -> None:
        self._threshold = threshold
        self._rest_seconds = rest_seconds
        self._failures = 0
        self._next_trial = 0.0

    def admits(self, now: float) -> bool:
        """Whether a call may be made; `now` in seconds of any clock that only goes forward."""
        if self._failures < self._threshold:
            return True
        if now < self._next_trial:
            return False
        self._next_trial = now + self._rest_seconds
        return True

    def succeeded(self) -> None:
        """The dependency answered; close."""
        self._failures = 0

    def failed(self, now: float) -> None:
        """The dependency did not answer."""
        self._failures += 1
        if self._failures >= self._threshold:
            self._next_trial = now + self._rest_seconds
