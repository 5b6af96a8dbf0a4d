"""How much GPU time was used: by day, user and GPU type."""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from datetime import UTC, date, datetime, time, timedelta

import msgspec

DEFAULT_DAYS = 30
"""Of a question that names no first day."""
MOST_DAYS = 366
"""Of one question."""
EARLIEST, LATEST = date(2000, 1, 1), date(2999, 12, 31)
_DAY = timedelta(days=1)


class Period(msgspec.Struct, frozen=True):
    """Whole days in UTC, both included."""

    first: date
    last: date

    @classmethod
    def of(cls, first: date | None, last: date | None, today: date) -> "Period":
        """What is asked about; what is left out is the last days, until today.

        Args:
            first: From EARLIEST to LATEST, as the others.
            last: Or None, as the first.
            today: In UTC.

        Raises:
            ValueError: It has no day, or too many; the text, of the first day, is for a person.
        """
        last = last or max(today, first or today)
        first = first or last - (DEFAULT_DAYS - 1) * _DAY
        if first > last:
            raise ValueError("Must not be later than the last day")
        if last - first >= MOST_DAYS * _DAY:
            raise ValueError(f"Must be at most {MOST_DAYS} days before the end of the last day")
        return cls(first, last)

    @property
    def begins_at(self) -> datetime:
        """The first moment of it."""
        return _midnight(self.first)

    @property
    def ends_at(self) -> datetime:
        """The first moment after it."""
        return _midnight(self.last + _DAY)


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """A job from the start of its time box to its end."""

    user_id: int
    username: str
    gpu_type: str
    gpu_count: int
    started_at: datetime
    ended_at: datetime | None
    """None: it has not ended."""


class DayUsage(msgspec.Struct, frozen=True, kw_only=True):
    day: date
    user_id: int
    username: str
    gpu_type: str
    gpu_time: timedelta
    """Length times GPUs, of all that ran."""


def usage_by_day(runs: Iterable[Run], period: Period, now: datetime) -> list[DayUsage]:
    """What runs used in a period, ordered by day, username, user and GPU type; days without any are left out.

    Args:
        runs: In any order; one that has not ended counts until now.
        period: A run that reaches beyond it counts with its part.
        now: Time of the question.
    """
    used: defaultdict[tuple[date, str, int, str], timedelta] = defaultdict(timedelta)
    for run in runs:
        until = now if run.ended_at is None else run.ended_at
        for day, length in _pieces(max(run.started_at, period.begins_at), min(until, period.ends_at)):
            used[day, run.username, run.user_id, run.gpu_type] += length * run.gpu_count
    return [
        DayUsage(day=day, user_id=user_id, username=username, gpu_type=gpu_type, gpu_time=gpu_time)
        for (day, username, user_id, gpu_type), gpu_time in sorted(used.items())
    ]


def _pieces(begin: datetime, end: datetime) -> Iterator[tuple[date, timedelta]]:
    """The days of a span, each with its part of it."""
    while begin < end:
        day = begin.astimezone(UTC).date()
        stop = min(_midnight(day + _DAY), end)
        yield day, stop - begin
        begin = stop


def _midnight(day: date) -> datetime:
    return datetime.combine(day, time.min, UTC)
