"""How long events may gather between two batches."""

from hypothesis import given
from hypothesis import strategies as st

from shared.messaging.linger import linger_seconds


def test_a_lone_event_makes_the_next_one_wait_for_nothing() -> None:
    assert linger_seconds(0) == 0
    assert linger_seconds(1) == 0


@given(st.integers(2, 10**6))
def test_more_events_linger_longer_but_never_beyond_a_fifth_of_a_second(events: int) -> None:
    assert linger_seconds(events) <= linger_seconds(events + 1) <= 0.2
    assert linger_seconds(events) > 0
