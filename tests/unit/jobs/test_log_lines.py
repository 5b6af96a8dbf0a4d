"""One reading of a log over connections that break anywhere."""

from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.jobs.domain.log_lines import KEPT_BYTES, MAX_LINE_BYTES, LastLines, LineReader, last_lines

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
    reader, told = LineReader(), b""
    for end in [*sorted(breaks), 1.0]:
        reader.take_up()
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
    assert reader.feed(stamp(1) + b" no end") == b""
    assert reader.finish() == b"no end"
    reader.take_up()
    assert reader.feed(stamp(1) + b" no end") + reader.finish() == b""


def test_a_line_that_never_ends_is_cut() -> None:
    reader = LineReader()
    told = reader.feed(stamp(1) + b" ")
    for _ in range(5):
        told += reader.feed(b"x" * (MAX_LINE_BYTES // 2))
    told += reader.feed(b"y\n" + stamp(2) + b" next\n")
    first, second, _ = told.split(b"\n")
    assert len(first) == MAX_LINE_BYTES - len(stamp(1)) - 1
    assert set(first) == {ord("x")}
    assert second == b"next"


@pytest.mark.parametrize("width", [1, 60, 5000, KEPT_BYTES // 2])
def test_the_last_megabyte_of_text_is_kept(width: int) -> None:
    lines, written = LastLines(), []
    for number in range(min(60_000, 3 * KEPT_BYTES // width)):
        written.append(b"%07d" % number + b"x" * width)
        lines.feed(stamp(number) + b" " + written[-1] + b"\n")
    content = lines.content()
    kept = LineReader().feed(content)
    assert b"".join(line + b"\n" for line in written).endswith(kept)
    whole = sum(len(line) + 1 for line in written)
    assert min(whole, KEPT_BYTES) <= len(kept) <= KEPT_BYTES + width + 8
    assert len(content) <= 8 * KEPT_BYTES + len(stamp(0)) + 1


def test_the_end_of_a_log_is_kept_with_a_line_that_has_no_end() -> None:
    lines = LastLines()
    for piece in (stamp(1) + b" a", b"b\n" + stamp(2), b" c"):
        lines.feed(piece)
    assert lines.content() == stamp(1) + b" ab\n" + stamp(2) + b" c"


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
