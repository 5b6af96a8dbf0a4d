"""Which snapshots are kept: the newest, the newest of each week, never none."""

import random
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from services.disks.domain.snapshot import Retention, Snapshot, SnapshotState, superfluous

NOW = datetime(2026, 1, 7, 12, tzinfo=UTC)
"""A Wednesday, in a week that began in the year before."""
HOURS_OF_EIGHT_WEEKS = 8 * 7 * 24
ages = st.lists(st.integers(min_value=0, max_value=HOURS_OF_EIGHT_WEEKS), max_size=40)
retentions = st.builds(Retention, newest=st.integers(0, 5), weeks=st.integers(0, 9))


def taken(hours_ago: int, number: int, status: SnapshotState = SnapshotState.COMPLETED) -> Snapshot:
    at = NOW - timedelta(hours=hours_ago)
    return Snapshot(
        id=UUID(int=number),
        disk_id=UUID(int=0),
        snapshot_id=f"snap-{number}",
        job_id=None,
        size_gb=10,
        status=status,
        error=None,
        created_at=at,
        completed_at=at,
    )


def week_of(moment: datetime) -> tuple[int, int]:
    return moment.isocalendar()[:2]


@given(ages, retentions)
@example([0], Retention(newest=0, weeks=0))
@example([0, 8 * 24], Retention(newest=1, weeks=1))
@example([0, 8 * 24], Retention(newest=1, weeks=2))
def test_exactly_the_newest_and_the_newest_of_each_week_are_kept(hours: list[int], retention: Retention) -> None:
    points = [taken(age, number) for number, age in enumerate(hours)]
    newest_first = sorted(points, key=lambda point: (point.created_at, point.id), reverse=True)
    weeks = [week_of(NOW - timedelta(weeks=back)) for back in range(retention.weeks)]
    of_weeks = [next((p for p in newest_first if week_of(p.created_at) == week), None) for week in weeks]
    random.Random(len(points)).shuffle(points)

    let_go = superfluous(points, retention, NOW)

    expected = [p for p in newest_first[max(1, retention.newest) :] if p not in of_weeks]
    assert let_go == expected[::-1]
    assert not points or len(let_go) < len(points)


@given(ages, retentions)
def test_what_is_kept_once_is_kept_when_asked_again(hours: list[int], retention: Retention) -> None:
    points = [taken(age, number) for number, age in enumerate(hours)]
    let_go = superfluous(points, retention, NOW)

    assert superfluous([point for point in points if point not in let_go], retention, NOW) == []


@pytest.mark.parametrize("status", [one for one in SnapshotState if one is not SnapshotState.COMPLETED])
def test_what_is_not_complete_is_neither_let_go_nor_takes_anothers_place(status: SnapshotState) -> None:
    complete, younger = taken(48, 1), taken(1, 2, status)

    assert superfluous([younger, complete], Retention(newest=1, weeks=1), NOW) == []
    assert superfluous([younger, younger], Retention(newest=0, weeks=0), NOW) == []
