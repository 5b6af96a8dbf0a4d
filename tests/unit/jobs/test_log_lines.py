"""One reading of a log over connections that break anywhere."""

from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.jobs.domain.kept_lines import LastLines, next_tail, tail_that_holds
from services.jobs.domain.log_lines import (
    EARLIER_LEFT_OUT,
    GAP,
    KEPT_BYTES,
    RECORD_BYTES,
    LineReader,
    last_lines,
    line_part_left_out,
)

START = datetime(2026, 1, 20, 18, 30, tzinfo=UTC)


def stamp(nanoseconds: int) -> bytes:
    """As kubelets write it: with the fraction's zeros cut off, or with all nine digits."""
    seconds, fraction = divmod(nanoseconds, 1_000_000_000)
    moment = f"{START + timedelta(seconds=seconds):%Y-%m-%dT%H:%M:%S}"
    digits = f"{fraction:09d}".rstrip("0") if nanoseconds % 2 else f"{fraction:09d}"
    return (f"{moment}.{digits}Z" if digits else f"{moment}Z").encode()


texts = st.binary(max_size=8).map(lambda text: text.replace(b"\n", b""))
logs = st.lists(st.tuples(st.integers(0, 3), texts), max_size=12).map(
    lambda steps: [
        (sum(step * 333_000_001 for step, _ in steps[: number + 1]), text) for number, (_, text) in enumerate(steps)
    ]
)


@given(logs, st.lists(st.floats(0, 1), max_size=5), st.integers(1, 9))
def test_however_often_it_breaks_each_line_is_told_once(
    log: list[tuple[int, bytes]], breaks: list[float], piece: int
) -> None:
    """Each connection begins at the second of the last line, as Kubernetes' sinceTime does."""
    reader, told = LineReader(has_marks=False), b""
    for end in [*sorted(breaks), 1.0]:
        reader.take_up(has_marks=False)
        since = reader.last_time
        from_second = None if since is None else since.replace(microsecond=0)
        content = b"".join(
            stamp(at) + b" " + text + b"\n"
            for at, text in log
            if from_second is None or START + timedelta(microseconds=at // 1000) >= from_second
        )
        content = content if end == 1.0 else content[: int(end * len(content))]
        for begin in range(0, len(content), piece):
            told += reader.feed(content[begin : begin + piece])
    told += reader.finish()
    assert told == b"".join(text + b"\n" for _, text in log)


def test_lines_before_since_are_left_out_to_the_nanosecond() -> None:
    reader = LineReader(START + timedelta(microseconds=500))
    content = b"".join(stamp(at) + b" %d\n" % at for at in (0, 499_999, 500_000, 500_001, 2_000_000_000))
    assert reader.feed(content) == b"500000\n500001\n2000000000\n"


def test_times_of_another_zone_are_the_same_times() -> None:
    reader = LineReader(START)
    assert reader.feed(b"2026-01-20T20:29:59.9+02:00 old\n2026-01-20T20:30:00+02:00 new\n") == b"new\n"


def test_what_a_kubelet_says_of_itself_is_no_line() -> None:
    reader = LineReader()
    assert reader.feed(b"unable to retrieve container logs for containerd://1") == b""
    assert reader.finish() == b""


def test_a_last_line_without_end_is_told_when_the_log_is_over_and_not_again() -> None:
    reader = LineReader()
    assert reader.feed(stamp(1) + b" no end") + reader.finish() == b"no end"
    reader.take_up()
    assert reader.feed(stamp(1) + b" no end") + reader.finish() == b""


def test_a_line_without_an_end_is_told_as_it_comes() -> None:
    reader = LineReader()
    assert reader.feed(stamp(1) + b" ") == b""
    for number in range(300):
        assert reader.feed(b"\r%5d" % number * 1000) == b"\r%5d" % number * 1000
    assert reader.feed(b"y\n" + stamp(2) + b" next\n") == b"y\nnext\n"


@given(st.integers(0, 30), st.integers(0, 50), st.booleans())
def test_a_line_that_breaks_off_goes_on_where_it_was_told(told: int, at: int, ends: bool) -> None:
    text = b"0123456789" * 3
    content = stamp(5) + b" " + text + (b"\n" if ends else b"")
    reader = LineReader()
    first = reader.feed(content[: at + told])
    reader.take_up()
    assert first + reader.feed(content + (b"" if ends else b"more\n")) == text + (b"" if ends else b"more") + b"\n"


@pytest.mark.parametrize("piece", [7, 100, 16384, 1 << 20])
@pytest.mark.parametrize("length", [RECORD_BYTES - 1, RECORD_BYTES, RECORD_BYTES + 1, 5 * RECORD_BYTES + 77])
def test_times_within_a_line_are_no_text(piece: int, length: int) -> None:
    """Kubelets before 1.27 write one before each record of a line."""
    text = (b"2026-01-20 " * (length // 11 + 1))[:length]
    parts = [text[at : at + RECORD_BYTES] for at in range(0, length, RECORD_BYTES)]
    content = b"".join(stamp(10 + number) + b" " + part for number, part in enumerate(parts)) + b"\n"
    reader, lines = LineReader(), LastLines()
    told = b"".join(reader.feed(content[at : at + piece]) for at in range(0, len(content), piece))
    lines.feed(content)
    lines.finish()
    assert told == text + b"\n"
    assert LineReader().feed(lines.content(limited=False)) == text + b"\n"


def test_what_a_node_no_longer_has_is_told_to_be_missing() -> None:
    reader = LineReader()
    assert reader.feed(stamp(1) + b" a\n" + stamp(2) + b" b") == b"a\nb"
    reader.take_up()
    assert reader.feed(stamp(9) + b" z\n") == b"\n" + GAP + b"z\n"


def test_nothing_is_missing_where_the_last_line_is_still_there() -> None:
    reader = LineReader()
    assert reader.feed(stamp(1) + b" a\n") == b"a\n"
    reader.take_up()
    assert reader.feed(stamp(1) + b" a\n" + stamp(9) + b" z\n") == b"z\n"


def test_what_was_there_is_passed_over() -> None:
    reader = LineReader(pass_over=True)
    assert reader.feed(stamp(1) + b" old\n" + stamp(2) + b" new\n") == b"new\n"
    bar = LineReader(pass_over=True)
    assert bar.feed(stamp(1) + b" " + b"o" * RECORD_BYTES + b"new") == b"new"


@pytest.mark.parametrize("moment", [datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)])
def test_times_may_be_the_first_and_the_last(moment: datetime) -> None:
    reader = LineReader(moment)
    assert reader.feed(stamp(1) + b" a\n") == (b"a\n" if moment.year == 1 else b"")
    assert reader.feed(b"2026-13-45T99:99:99Z no time\n") == b""


@pytest.mark.parametrize("width", [1, 60, 5000, KEPT_BYTES // 2])
def test_the_last_megabyte_of_text_is_kept(width: int) -> None:
    lines, written = LastLines(), []
    for number in range(min(60_000, 3 * KEPT_BYTES // width)):
        written.append(b"%07d" % number + b"x" * width)
        lines.feed(stamp(number) + b" " + written[-1] + b"\n")
    lines.finish()
    content = lines.content(limited=False)
    kept = LineReader().feed(content)
    whole = sum(len(line) + 1 for line in written)
    assert kept.startswith(EARLIER_LEFT_OUT) is (whole > KEPT_BYTES)
    kept = kept.removeprefix(EARLIER_LEFT_OUT)
    assert b"".join(line + b"\n" for line in written).endswith(kept)
    assert min(whole, KEPT_BYTES) <= len(kept) <= KEPT_BYTES + width + 8
    assert len(content) <= 8 * KEPT_BYTES + 100


@pytest.mark.parametrize("piece", [10_000, 3 * KEPT_BYTES])
def test_of_a_line_that_is_longer_than_all_that_is_kept_its_end_is(piece: int) -> None:
    text = b"".join(b"\r%9d" % number for number in range(4 * KEPT_BYTES // 10))
    content = stamp(1) + b" before\n" + stamp(2) + b" " + text
    lines = LastLines()
    for at in range(0, len(content), piece):
        lines.feed(content[at : at + piece])
    lines.finish()
    note = EARLIER_LEFT_OUT + line_part_left_out(len(text) - KEPT_BYTES)
    assert LineReader().feed(lines.content(limited=False)) == note + text[-KEPT_BYTES:]


def test_who_had_followed_is_told_the_rest_of_what_is_kept_alone() -> None:
    content = b"".join(stamp(number // 3) + b" " + b"%09d" % number * 20_000 + b"\n" for number in range(30))
    lines = LastLines()
    lines.feed(content)
    lines.finish()
    for end in range(0, len(content), 40_001):
        reader = LineReader()
        told = reader.feed(content[:end])
        reader.take_up()
        told += reader.feed(lines.content(limited=False))
        whole = LineReader().feed(content)
        missing = len(whole) - len(told.replace(EARLIER_LEFT_OUT, b""))
        assert (missing > 0) is (EARLIER_LEFT_OUT in told)
        assert told.endswith(whole[-KEPT_BYTES // 2 :])


def test_the_end_of_a_log_is_kept_with_a_line_that_has_no_end() -> None:
    lines = LastLines()
    for piece in (stamp(1) + b" a", b"b\n" + stamp(2), b" c"):
        lines.feed(piece)
    lines.finish()
    assert lines.content(limited=False) == stamp(1) + b" ab\n" + stamp(2) + b" c"


def test_what_may_be_the_rest_of_a_line_is_told_to_be_cut() -> None:
    one, two = stamp(1) + b" rest\n", stamp(2) + b" whole\n"
    both, alone = LastLines(), LastLines()
    both.feed(one + two)
    alone.feed(one)
    for lines, text in ((both, b"whole\n"), (alone, b"rest\n")):
        lines.finish()
        assert LineReader().feed(lines.content(limited=True)) == EARLIER_LEFT_OUT + text


def test_more_records_are_asked_for_until_they_hold_what_is_kept() -> None:
    short, long = LastLines(), LastLines()
    short.feed(b"".join(stamp(number) + b" abcdefghi\n" for number in range(64)))
    long.feed(stamp(1) + b" " + b"x" * KEPT_BYTES)
    for lines in (short, long):
        lines.finish()
        assert not lines.is_enough
    assert next_tail(64, short) == 64 * 64
    assert next_tail(100_000, short) > KEPT_BYTES / 10
    assert next_tail(64, long) == 256
    assert tail_that_holds(short.content(limited=False)) is None
    assert tail_that_holds(short.content(limited=True)) == 2048 + 64 + 1


@given(st.binary(max_size=40), st.integers(0, 9))
def test_the_last_lines_are_as_many_as_asked_for(content: bytes, count: int) -> None:
    end = last_lines(content, count)
    assert content.endswith(end)
    assert end.count(b"\n") + (not end.endswith(b"\n") and end != b"") <= count
    assert last_lines(content, None) == content


def test_nanoseconds_keep_the_order() -> None:
    times = [0, 1, 10, 999, 1000, 999_999_999, 1_000_000_000]
    for earlier, later in pairwise(times):
        reader = LineReader()
        reader.feed(stamp(earlier) + b" a\n")
        reader.take_up()
        assert reader.feed(stamp(earlier) + b" a\n" + stamp(later) + b" b\n") == b"b\n"
