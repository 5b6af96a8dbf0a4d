from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.auth.domain.keys import (
    ROTATION_GRACE,
    KeyTerms,
    StoredKey,
    UserDisabled,
    judge_key,
    key_end,
    session_end,
    sooner,
)
from shared.errors import Unauthenticated

NOON = datetime(2026, 1, 20, 12, tzinfo=UTC)
ONE_MICROSECOND = timedelta(microseconds=1)

hours = st.integers(1, 168).map(lambda number: timedelta(hours=number))
moments = st.datetimes(datetime(2026, 1, 1), datetime(2027, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001


def stored(
    *,
    expires_at: datetime = NOON + timedelta(hours=2),
    dies_at: datetime | None = None,
    reason: str | None = None,
    disabled: bool = False,
) -> StoredKey:
    return StoredKey(
        key_id="k",
        user_id=42,
        username="jschmidt",
        expires_at=expires_at,
        dies_at=dies_at,
        revoked_reason=reason,
        user_disabled=disabled,
        is_operator=False,
    )


@given(ttl=hours, session=hours, proved_at=moments, pauses=st.lists(st.floats(0, 1.2), min_size=1, max_size=60))
def test_no_chain_of_rotations_outlives_the_session(
    ttl: timedelta, session: timedelta, proved_at: datetime, pauses: list[float]
) -> None:
    """Incident 14: each pause is a share of the key's life; the thief rotates again and again."""
    terms = KeyTerms(ttl, session)
    ends_at = session_end(terms, proved_at)
    now, end = proved_at, key_end(terms, proved_at, ends_at)
    for pause in pauses:
        assert end <= ends_at <= proved_at + session
        assert end <= now + ttl
        now += (end - now) * pause
        try:
            judge_key(stored(expires_at=end), now)
        except Unauthenticated:
            assert now >= end
            return
        assert now < ends_at
        end = key_end(terms, now, ends_at)


@given(ttl=hours, session=hours, now=moments)
def test_ends_are_whole_seconds_and_no_more_than_one_second_short(
    ttl: timedelta, session: timedelta, now: datetime
) -> None:
    terms = KeyTerms(ttl, session)
    end = key_end(terms, now, session_end(terms, now))
    assert end.microsecond == 0
    assert timedelta(0) <= now + min(ttl, session) - end < timedelta(seconds=1)


@given(first=st.none() | moments, wanted=moments)
def test_a_revocation_is_brought_forward_never_put_off(first: datetime | None, wanted: datetime) -> None:
    result = sooner(first, wanted)
    assert result <= wanted
    assert first is None or result <= first


def test_a_key_lives_until_the_very_moment_of_its_end() -> None:
    end = NOON + timedelta(hours=2)
    assert judge_key(stored(expires_at=end), end - ONE_MICROSECOND).user_id == 42
    with pytest.raises(Unauthenticated):
        judge_key(stored(expires_at=end), end)


def test_a_rotated_key_lives_60_seconds_more_and_callers_are_told_that_end() -> None:
    dies_at = NOON + ROTATION_GRACE
    assert timedelta(seconds=60) == ROTATION_GRACE
    key = stored(dies_at=dies_at, reason="rotated")
    assert judge_key(key, dies_at - ONE_MICROSECOND).expires_at == dies_at
    with pytest.raises(Unauthenticated):
        judge_key(key, dies_at)


def test_a_death_after_the_expiry_changes_nothing() -> None:
    key = stored(expires_at=NOON + timedelta(seconds=5), dies_at=NOON + timedelta(seconds=60), reason="rotated")
    assert judge_key(key, NOON).expires_at == NOON + timedelta(seconds=5)


@pytest.mark.parametrize(
    ("key", "error"),
    [
        (stored(disabled=True), UserDisabled),
        (stored(disabled=True, dies_at=NOON, reason="user_disabled"), UserDisabled),
        (stored(disabled=False, dies_at=NOON, reason="user_disabled"), Unauthenticated),
        (stored(disabled=True, dies_at=NOON, reason="revoked"), Unauthenticated),
        (stored(disabled=True, expires_at=NOON), Unauthenticated),
        (stored(dies_at=NOON, reason="revoked"), Unauthenticated),
    ],
)
def test_what_is_refused_and_how(key: StoredKey, error: type[Exception]) -> None:
    with pytest.raises(error):
        judge_key(key, NOON)
