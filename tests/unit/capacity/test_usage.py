"""GPU hours by day: nothing is lost or counted twice, wherever midnight falls."""

from datetime import UTC, date, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.capacity.domain.usage import DayUsage, Period, Run, usage_by_day
from services.capacity.schemas import Usage

TODAY = date(2026, 1, 20)
NOW = datetime(2026, 1, 20, 18, 30, tzinfo=UTC)
HOUR = timedelta(hours=1)
MOMENTS = st.datetimes(datetime(2025, 12, 1), datetime(2026, 1, 20, 18, 30), timezones=st.just(UTC))  # noqa: DTZ001


def run(started_at: datetime, ended_at: datetime | None, **changes: object) -> Run:
    return Run(
        **{  # type: ignore[arg-type]
            "user_id": 1,
            "username": "ann",
            "gpu_type": "h100",
            "gpu_count": 8,
            "started_at": started_at,
            "ended_at": ended_at,
            **changes,
        }
    )


@st.composite
def runs(draw: st.DrawFn) -> Run:
    first, second = sorted([draw(MOMENTS), draw(MOMENTS)])
    return run(
        first,
        draw(st.sampled_from([second, None])),
        user_id=draw(st.integers(1, 3)),
        gpu_type=draw(st.sampled_from(["h100", "a100"])),
        gpu_count=draw(st.integers(1, 8)),
    )


def total(used: list[DayUsage]) -> timedelta:
    return sum((one.gpu_time for one in used), timedelta())


@given(st.lists(runs(), max_size=8))
def test_the_days_of_all_runs_sum_to_their_lengths_times_their_gpus(found: list[Run]) -> None:
    used = usage_by_day(found, Period(date(2025, 12, 1), TODAY), NOW)
    lengths = [((one.ended_at or NOW) - one.started_at) * one.gpu_count for one in found]
    assert total(used) == sum(lengths, timedelta())
    assert all(timedelta() < one.gpu_time for one in used)
    keys = [(one.day, one.username, one.user_id, one.gpu_type) for one in used]
    assert keys == sorted(set(keys))


@given(st.lists(runs(), max_size=8), st.dates(date(2025, 12, 2), TODAY))
def test_two_periods_that_meet_sum_to_the_whole(found: list[Run], middle: date) -> None:
    day = timedelta(days=1)
    whole = usage_by_day(found, Period(date(2025, 12, 1), TODAY), NOW)
    parts = [Period(date(2025, 12, 1), middle - day), Period(middle, TODAY)]
    assert [one for part in parts for one in usage_by_day(found, part, NOW)] == whole


@given(runs())
def test_no_day_of_a_run_is_longer_than_a_day(one: Run) -> None:
    used = usage_by_day([one], Period(date(2025, 12, 1), TODAY), NOW)
    assert all(day.gpu_time <= 24 * HOUR * one.gpu_count for day in used)
    assert [day.gpu_time for day in used[1:-1]] == [24 * HOUR * one.gpu_count] * len(used[1:-1])


def test_a_run_over_midnight_is_split_exactly() -> None:
    midnight = datetime(2026, 1, 20, tzinfo=UTC)
    used = usage_by_day([run(midnight - HOUR / 2, midnight + 2 * HOUR)], Period(date(2026, 1, 1), TODAY), NOW)
    assert [(one.day, one.gpu_time) for one in used] == [(date(2026, 1, 19), 4 * HOUR), (TODAY, 16 * HOUR)]


def test_a_run_that_ends_at_midnight_has_nothing_on_the_next_day() -> None:
    midnight = datetime(2026, 1, 20, tzinfo=UTC)
    used = usage_by_day([run(midnight - HOUR, midnight)], Period(date(2026, 1, 1), TODAY), NOW)
    assert [one.day for one in used] == [date(2026, 1, 19)]


def test_a_period_ends_today_unless_another_day_is_said() -> None:
    assert Period.of(None, None, TODAY) == Period(date(2025, 12, 22), TODAY)
    assert Period.of(TODAY, None, TODAY) == Period(TODAY, TODAY)
    assert Period.of(None, date(2025, 3, 1), TODAY) == Period(date(2025, 1, 31), date(2025, 3, 1))
    assert Period.of(date(2025, 1, 20), TODAY, TODAY) == Period(date(2025, 1, 20), TODAY)


@pytest.mark.parametrize(
    ("first", "last"), [(date(2025, 1, 19), TODAY), (TODAY, date(2026, 1, 19)), (date(2000, 1, 1), None)]
)
def test_a_period_that_is_too_long_or_backwards_is_refused(first: date, last: date | None) -> None:
    with pytest.raises(ValueError, match="Must"):
        Period.of(first, last, TODAY)


@pytest.mark.parametrize(("milliseconds", "told"), [(179, [1.0]), (181, [1.0, 0.0001])])
def test_a_moment_after_midnight_that_is_told_as_no_hours_has_no_row(milliseconds: int, told: list[float]) -> None:
    midnight = datetime(2026, 1, 20, tzinfo=UTC)
    found = run(midnight - HOUR, midnight + timedelta(milliseconds=milliseconds), gpu_count=1)
    period = Period(date(2026, 1, 19), TODAY)
    assert [row.gpu_hours for row in Usage.of(period, usage_by_day([found], period, NOW)).rows] == told
