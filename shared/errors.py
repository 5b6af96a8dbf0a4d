"""What can go wrong for a caller: one class per situation, each with a kind; kind to status is one table."""

from collections.abc import Sequence
from enum import Enum
from typing import Any, ClassVar

import msgspec


class ErrorKind(Enum):
    INVALID = 400
    UNAUTHENTICATED = 401
    FORBIDDEN = 403
    NOT_FOUND = 404
    TIMED_OUT = 408
    CONFLICT = 409
    GONE = 410
    TOO_LARGE = 413
    NOT_JSON = 415
    IDEMPOTENCY_MISMATCH = 422
    UPGRADE_REQUIRED = 426
    RATE_LIMITED = 429
    INTERNAL = 500
    UNAVAILABLE = 503

    @property
    def status_code(self) -> int:
        """HTTP status of the kind."""
        return self.value


class Problem(msgspec.Struct, frozen=True, omit_defaults=True):
    """One fault of an input, in the shape and vocabulary of the contract's validation errors."""

    type: str
    """One of the small fixed vocabulary: missing, extra_forbidden, string_type, value_error, ..."""
    loc: tuple[str | int, ...]
    """Where: starts with body, path, query or header."""
    msg: str
    """For a person. Never holds the value."""
    input: Any = msgspec.UNSET
    """The value as it was given, where it can be no secret and is short."""


class GpuDevError(Exception):
    """Base of the errors that callers may see.

    Args:
        text: Public text; it goes to the client as it is.
        retry_after_seconds: For Retry-After; None means no such header, except where the kind always has one.
        context: Internal facts for the log, never for the client.
    """

    kind: ClassVar[ErrorKind] = ErrorKind.INTERNAL

    def __init__(self, text: str, *, retry_after_seconds: int | None = None, **context: object) -> None:
        super().__init__(text)
        self.text = text
        self.retry_after_seconds = retry_after_seconds
        self.context = context


MAX_PROBLEMS = 50
"""As many are told; what is beyond them is only counted."""


class InvalidInput(GpuDevError):
    """The input has one or more problems, each listed up to a number that a person may want to read.

    Args:
        problems: At least one.
        more: Problems beyond these, which were only counted.
    """

    kind = ErrorKind.INVALID

    def __init__(self, problems: Sequence[Problem], more: int = 0) -> None:
        self.more = more + max(0, len(problems) - MAX_PROBLEMS)
        problems = problems[:MAX_PROBLEMS]
        super().__init__("; ".join(f"{'.'.join(map(str, p.loc))}: {p.msg}" for p in problems))
        self.problems = tuple(problems)

    def told(self) -> list[Problem]:
        """The problems, and the number of those that are not among them."""
        if not self.more:
            return list(self.problems)
        rest = Problem("too_many_problems", self.problems[0].loc[:1], f"There are {self.more} more problems")
        return [*self.problems, rest]


class Unauthenticated(GpuDevError):
    """The key is missing, malformed, unknown, expired or revoked: one text for all."""

    kind = ErrorKind.UNAUTHENTICATED

    def __init__(self, text: str = "Invalid API key") -> None:
        super().__init__(text)


class Forbidden(GpuDevError):
    kind = ErrorKind.FORBIDDEN


class OperatorsOnly(Forbidden):
    """The asker is no operator; `what` follows "Only operators may"."""

    def __init__(self, what: str) -> None:
        super().__init__(f"Only operators may {what}")


class NotFound(GpuDevError):
    """Missing or someone else's: the same text."""

    kind = ErrorKind.NOT_FOUND

    def __init__(self, what: str) -> None:
        super().__init__(f"{what} not found")


class Conflict(GpuDevError):
    """The current state refuses; the text says which state."""

    kind = ErrorKind.CONFLICT


class Gone(GpuDevError):
    kind = ErrorKind.GONE


class IdempotencyMismatch(GpuDevError):
    kind = ErrorKind.IDEMPOTENCY_MISMATCH


class RateLimited(GpuDevError):
    kind = ErrorKind.RATE_LIMITED


class Unavailable(GpuDevError):
    """Something that we depend on does not answer; nothing was changed, or the change can be repeated."""

    kind = ErrorKind.UNAVAILABLE


class DatabaseUnavailable(Unavailable):
    def __init__(self, **context: object) -> None:
        super().__init__("The database is unavailable, try again shortly", retry_after_seconds=2, **context)


class BrokerUnavailable(Unavailable):
    def __init__(self, **context: object) -> None:
        super().__init__("The message broker is unavailable, try again shortly", retry_after_seconds=2, **context)
