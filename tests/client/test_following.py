"""Signs of life in a followed log that was cut; tests/client/test_exchange.py has what comes through the client."""

from gpudev.following import LogPosition


class Clock:
    seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


def test_a_sign_of_life_before_the_log_comes_again_does_not_end_the_search() -> None:
    clock = Clock()
    position = LogPosition(from_start=True, stopwatch=clock)
    told = position.feed(b"line 0\nline 1\n")
    position.cut()
    told += position.feed(b"\n")
    for _ in range(2):
        clock.seconds += 15
        told += position.feed(b"\n")
    told += position.feed(b"line 0\nline 1\nline 2\n")
    assert told == b"line 0\nline 1\nline 2\n"


def test_a_sign_of_life_after_another_log_says_that_it_is_all_there_is() -> None:
    clock = Clock()
    position = LogPosition(from_start=True, stopwatch=clock)
    told = position.feed(b"line 0\nline 1\n")
    position.cut()
    told += position.feed(b"another\n")
    clock.seconds += 15
    told += position.feed(b"\n")
    assert told == b"line 0\nline 1\nanother\n"
