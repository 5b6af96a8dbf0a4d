"""How long events may gather between two batches."""

from hypothesis import given
from hypothesis import strategies as st

from shared.messaging.batch_delay import BatchDelay


class Stopwatch:
    """Stands until it is moved."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


def rest(delay: BatchDelay, stopwatch: Stopwatch, events: int) -> float:
    """What it says after a batch, after which so much time has gone by."""
    seconds = delay.seconds_after(events)
    stopwatch.seconds += seconds
    return seconds


def busy(stopwatch: Stopwatch) -> BatchDelay:
    """After more events than are taken at once."""
    delay = BatchDelay(stopwatch)
    assert delay.seconds_after(1000) > 0
    return delay


def test_a_lone_event_makes_the_next_one_wait_for_nothing_however_many_came_before() -> None:
    delay = busy(Stopwatch())
    assert delay.seconds_after(0) == 0
    assert delay.seconds_after(1) == 0


@given(st.integers(2, 10**6))
def test_of_many_events_more_are_waited_for_longer_but_never_beyond_a_fifth_of_a_second(events: int) -> None:
    stopwatch = Stopwatch()
    assert 0 < busy(stopwatch).seconds_after(events) <= busy(stopwatch).seconds_after(events + 1) <= 0.2


@given(st.lists(st.integers(1, 30), max_size=40))
def test_a_burst_after_a_calm_second_is_taken_without_a_wait_up_to_a_hundred_events(batches: list[int]) -> None:
    stopwatch = Stopwatch()
    delay = busy(stopwatch)
    stopwatch.seconds += 1.0
    taken = 0
    for events in batches:
        waited = delay.seconds_after(events)
        taken += events
        if taken <= 100:
            assert waited == 0
        elif events > 1:
            assert waited > 0
            return


@given(st.floats(101, 5000))
def test_of_what_keeps_coming_faster_batches_become_few(a_second: float) -> None:
    stopwatch = Stopwatch()
    delay = busy(stopwatch)
    batches, came, taken = 0, 0.0, 0
    while stopwatch.seconds < 20:
        stopwatch.seconds += 0.005  # what a batch takes by itself
        came = stopwatch.seconds * a_second
        events = int(came) - taken
        taken += events
        rest(delay, stopwatch, events)
        batches += events > 1
    # two events at once at 100 a second are 50 batches a second
    assert batches <= 20 * 50 + 50
    assert batches <= 20 * 5 + 5 or a_second < 1000
