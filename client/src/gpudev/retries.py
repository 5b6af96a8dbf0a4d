"""When a request is sent again, and when not."""

import random
import time
from collections.abc import Callable

from gpudev.core import ConnectionLost, Effect, Open, Request, Response, Send, Sleep, Steps
from gpudev.errors import ConnectionFailed, GpuDevError, error_of

IDEMPOTENCY_KEY = "Idempotency-Key"
_AGAIN = frozenset({429, 502, 503, 504})
_CONFLICT = 409
_SUCCESS = range(200, 300)
_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 0.2, 10.0


def exchange(
    request: Request,
    *,
    seconds: float,
    accepted: frozenset[int] = frozenset(),
    effect: Callable[[Request], Effect] = Send,
) -> Steps[Response]:
    """The answer to a request, which is sent again, the same in all, while that can help.

    That is: after a lost connection and the statuses 429, 502, 503 and 504, and after the 409 that says that the first
    sending is still in flight, which is the one with a Retry-After.

    Args:
        request: A GET, or with an idempotency key.
        seconds: After which no more is tried.
        accepted: Statuses of an error that are answers here.
        effect: How it is sent.

    Raises:
        GpuDevError: By the kind of what went wrong last.
    """
    deadline = time.monotonic() + seconds
    pause = _FIRST_PAUSE_SECONDS
    while True:
        failure: GpuDevError
        try:
            response: Response = yield effect(request)
        except ConnectionLost as lost:
            failure = ConnectionFailed(str(lost))
        else:
            if response.status in _SUCCESS or response.status in accepted:
                return response
            failure = error_of(response.status, response.headers, response.body)
            if not _worth_repeating(request, failure):
                raise failure
        # spread, so that clients which an outage has brought into step come back one by one
        delay = max(failure.retry_after or 0.0, pause * random.uniform(0.5, 1.0))  # noqa: S311 - no secret
        if time.monotonic() + delay > deadline:
            raise failure
        yield Sleep(delay)
        pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)


def opened(request: Request, *, seconds: float) -> Steps[Response]:
    """Like `exchange`, of an answer whose body is read piece by piece."""
    return (yield from exchange(request, seconds=seconds, effect=Open))


def _worth_repeating(request: Request, failure: GpuDevError) -> bool:
    in_flight = failure.status == _CONFLICT and failure.retry_after is not None and IDEMPOTENCY_KEY in request.headers
    return failure.status in _AGAIN or in_flight
