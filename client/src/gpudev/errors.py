"""What can go wrong, one exception a kind, so that a caller writes `except NotFound`."""

from collections.abc import Mapping
from typing import Any

import msgspec


class Problem(msgspec.Struct, frozen=True, kw_only=True):
    """One fault of what was sent."""

    type: str = ""
    """One of a small fixed vocabulary: missing, extra_forbidden, string_type, value_error, ..."""
    loc: tuple[str | int, ...] = ()
    """Where; begins with body, path, query or header."""
    msg: str = ""
    input: Any = None
    """The value, where the service repeats it."""

    def __str__(self) -> str:
        field = ".".join(str(part) for part in self.loc[1:] or self.loc)
        return f"{field}: {self.msg}" if field else self.msg


class GpuDevError(Exception):
    """Base of all.

    Args:
        detail: For a person.
        status: Of the answer; None when there was none.
        problems: Of a refused input: all of them.
        request_id: Names the request in the service's logs.
        retry_after: Seconds after which the service would be asked again.
    """

    def __init__(
        self,
        detail: str,
        *,
        status: int | None = None,
        problems: tuple[Problem, ...] = (),
        request_id: str | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(detail)
        self.detail = detail
        self.status = status
        self.problems = problems
        self.request_id = request_id
        self.retry_after = retry_after


class InvalidRequest(GpuDevError):
    """What was sent is wrong; `problems` lists everything that is."""


class Unauthenticated(GpuDevError):
    """The key is missing, wrong, expired or revoked, or AWS does not know the credentials."""


class Forbidden(GpuDevError):
    """The key or the identity is good, and may not do this."""


class NotFound(GpuDevError):
    """There is no such thing, or it is someone else's."""


class Conflict(GpuDevError):
    """The current state does not allow it; the text says which state."""


class Gone(GpuDevError):
    """It is marked for deletion."""


class IdempotencyMismatch(GpuDevError):
    """The idempotency key was used with another request."""


class RateLimited(GpuDevError):
    """Too many requests; `retry_after` says when to come back."""


class Unavailable(GpuDevError):
    """The service, or something that it depends on, is down."""


class ServerError(GpuDevError):
    """A fault of the service; `request_id` names it in its log."""


class ConnectionFailed(GpuDevError):
    """No answer came: not reachable, cut, or silent for too long."""


class UnexpectedAnswer(GpuDevError):
    """The answer is none of this API's."""


_BY_STATUS: dict[int, type[GpuDevError]] = {
    401: Unauthenticated,
    403: Forbidden,
    404: NotFound,
    409: Conflict,
    410: Gone,
    422: IdempotencyMismatch,
    429: RateLimited,
    502: Unavailable,
    503: Unavailable,
    504: Unavailable,
}
_FIRST_SERVER_ERROR = 500
_FIRST_CLIENT_ERROR = 400


class _Body(msgspec.Struct):
    detail: str | list[Problem]
    request_id: str | None = None


def error_of(status: int, headers: Mapping[str, str], body: bytes) -> GpuDevError:
    """The exception that an answer stands for.

    Args:
        status: 300 or more.
        headers: With lower-case names.
        body: Whatever came.
    """
    try:
        read = msgspec.json.decode(body, type=_Body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        read = _Body(f"HTTP {status} without an explanation")
    problems = tuple(read.detail) if isinstance(read.detail, list) else ()
    detail = "; ".join(map(str, problems)) if isinstance(read.detail, list) else read.detail
    return _kind(status)(
        detail,
        status=status,
        problems=problems,
        request_id=headers.get("x-request-id") or read.request_id,
        retry_after=_seconds(headers.get("retry-after")),
    )


def _kind(status: int) -> type[GpuDevError]:
    if status in _BY_STATUS:
        return _BY_STATUS[status]
    if status >= _FIRST_SERVER_ERROR:
        return ServerError
    return InvalidRequest if status >= _FIRST_CLIENT_ERROR else UnexpectedAnswer


def _seconds(text: str | None) -> float | None:
    """A Retry-After in seconds; the form with a date is taken for none."""
    return float(text) if text is not None and text.isascii() and text.isdigit() else None
