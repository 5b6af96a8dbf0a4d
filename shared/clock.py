"""What time it is, as an argument: whatever decides by the time is given a clock, so that a test can turn it."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import TypeAlias

Clock: TypeAlias = Callable[[], datetime]
"""The time of day, in UTC."""
Stopwatch: TypeAlias = Callable[[], float]
"""Seconds that only ever grow, as `time.monotonic`: for how long something takes."""


def utc_now() -> datetime:
    """The time of day, in UTC."""
    return datetime.now(UTC)
