"""How long events may gather between two batches."""

from hypothesis import given
from hypothesis import strategies as st

from shared.messaging.batch_delay import batch_delay_seconds


def test_a_lone_event_makes_the_next_one_wait_for_nothing() -> None:
    assert batch_delay_seconds(0) == 0
    assert batch_delay_seconds(1) == 0


@given(st.integers(2, 10**6))
def test_more_events_are_waited_for_longer_but_never_beyond_a_fifth_of_a_second(events: int) -> None:
    assert batch_delay_seconds(events) <= batch_delay_seconds(events + 1) <= 0.2
    assert batch_delay_seconds(events) > 0
