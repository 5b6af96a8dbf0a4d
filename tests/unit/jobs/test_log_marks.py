"""What was printed is told byte for byte, wherever the tools have ended a record before its line and logs break off."""

import itertools
import re

from hypothesis import example, given
from hypothesis import strategies as st

from deploy.local.tools.first_process import Records
from services.jobs.domain.kept_lines import LastLines
from services.jobs.domain.log_lines import GAP, KEPT_BYTES, LineReader, last_lines
from services.jobs.domain.log_marks import CUT, WHOLE
from services.jobs.domain.log_tail import TailFinder
from tests.unit.jobs.test_log_lines import stamp

outputs = st.lists(
    st.tuples(
        st.sampled_from([0.0, 0.1, 1.0]),
        st.lists(st.sampled_from([CUT, WHOLE, b"\n", b"\r", b"a", b"2026-01-20T18:30:00Z "])).map(b"".join),
    ),
    max_size=12,
)
Output = list[tuple[float, bytes]]


def written(output: Output) -> bytes:
    """A container's output, of what its command printed after so many seconds each."""
    records, now, told = Records(), 0.0, b""
    for seconds, text in output:
        now += seconds
        told += records.cut(now) + records.text(text, now)
    return told + records.end()


def with_times(content: bytes) -> bytes:
    """As a kubelet tells it: what has no end at the end has none."""
    lines = content.split(b"\n")
    whole = b"".join(stamp(333_000_001 * number) + b" " + line + b"\n" for number, line in enumerate(lines[:-1]))
    return whole + (stamp(333_000_001 * len(lines)) + b" " + lines[-1] if lines[-1] else b"")


@given(outputs, st.integers(1, 50), st.lists(st.floats(0, 1), max_size=4))
@example([(0.0, CUT), (1.0, b"\n"), (0.0, WHOLE + b"\n"), (0.0, CUT)], 1, [])
def test_what_was_printed_is_told_byte_for_byte(output: Output, piece: int, breaks: list[float]) -> None:
    printed = b"".join(text for _, text in output)
    content = with_times(written(output))
    reader, told = LineReader(), b""
    for end in [*sorted(breaks), 1.0]:
        reader.take_up()
        part = content if end == 1.0 else content[: int(end * len(content))]
        for begin in range(0, len(part), piece):
            told += reader.feed(part[begin : begin + piece])
    assert told + reader.finish() == printed


@given(outputs, st.integers(1, 50), st.floats(0, 1))
def test_what_was_printed_is_kept_byte_for_byte_also_for_who_had_followed(
    output: Output, piece: int, told: float
) -> None:
    printed = b"".join(text for _, text in output)
    content = with_times(written(output))
    lines = LastLines()
    for begin in range(0, len(content), piece):
        lines.feed(content[begin : begin + piece])
    lines.finish()
    kept = lines.content(limited=False)
    alone, follower = LineReader(), LineReader()
    assert alone.feed(kept) + alone.finish() == printed
    before = follower.feed(content[: int(told * len(content))])
    follower.take_up()
    assert before + follower.feed(kept) + follower.finish() == printed


@given(st.lists(st.lists(st.sampled_from([CUT, WHOLE, b"a"]), max_size=3).map(b"".join), max_size=6), st.booleans())
def test_what_a_bare_pod_prints_has_no_marks(texts: list[bytes], ends: bool) -> None:
    printed = b"\n".join(texts) + (b"\n" if ends else b"")
    content = with_times(printed)
    reader, lines, kept = LineReader(has_marks=False), LastLines(has_marks=False), LineReader()
    assert reader.feed(content) + reader.finish() == printed
    lines.feed(content)
    lines.finish()
    assert kept.feed(lines.content(limited=False)) + kept.finish() == printed


@given(outputs, st.integers(1, 4), st.integers(0, 12), st.integers(1, 50))
def test_the_last_lines_are_found_among_their_records(output: Output, count: int, asked: int, piece: int) -> None:
    """In the whole log or, where Kubernetes tells only its last records, in those or not at all."""
    printed = b"".join(text for _, text in output)
    content = with_times(written(output))
    records = re.findall(rb"[^\n]*\n|[^\n]+", content)
    end = b"".join(records[-asked:]) if asked else content
    finder = TailFinder(count)
    for begin in range(0, len(end), piece):
        finder.feed(end[begin : begin + piece])
    whole = end == content
    position = finder.position(whole=whole)
    reader = LineReader()
    if position is not None:
        reader.begin_after(position.raw, position.same)
    reader.take_up()
    told = reader.feed(content) + reader.finish()
    if whole or position is not None:
        assert told == last_lines(printed, count)


def test_a_line_that_goes_on_is_seen_as_soon_as_it_was_cut() -> None:
    records = Records()
    assert records.unseen_seconds(0) is None
    assert records.text(b"done\n", 0) == b"done\n"
    assert (records.unseen_seconds(0), records.cut(9)) == (None, b"")
    assert records.text(b"\r10%", 10) == b"\r10%"
    assert records.text(b"\r11%", 10.2) == b"\r11%"
    assert (records.cut(10.2), 0 < (records.unseen_seconds(10.2) or 0) < 0.2) == (b"", True)
    assert (records.cut(10.3), records.cut(10.3)) == (CUT + b"\n", b"")
    assert LineReader().feed(stamp(1) + b" \r10%\r11%" + CUT + b"\n") == b"\r10%\r11%"


def test_what_is_missing_is_told_on_a_line_of_its_own_also_amid_a_line() -> None:
    reader = LineReader()
    reader.feed(stamp(1) + b" \r10%" + CUT + b"\n")
    reader.take_up()
    assert reader.feed(stamp(9) + b" \r90%" + CUT + b"\n") == b"\n" + GAP + b"\r90%"


def test_marks_do_not_count_as_text_that_is_kept() -> None:
    lines, bar = LastLines(), [b"\r%9d" % number for number in range(KEPT_BYTES // 10 + 1000)]
    for number, state in enumerate(bar):
        lines.feed(stamp(number) + b" " + state + CUT + b"\n")
    lines.finish()
    kept = LineReader().feed(lines.content(limited=False)).split(b"\n", 1)[1]
    assert b"".join(bar).endswith(kept)
    assert KEPT_BYTES <= len(kept) <= KEPT_BYTES + 10


def test_all_ends_of_lines_are_told_apart() -> None:
    """Every text of marks, as a line and as a beginning of one."""
    for marks in itertools.product((CUT, WHOLE), repeat=3):
        text = b"".join(marks)
        for output in ([(0.0, text + b"\n")], [(0.0, text), (1.0, b"\n")], [(0.0, text), (1.0, text + b"\n")]):
            printed = b"".join(part for _, part in output)
            assert LineReader().feed(with_times(written(output))) == printed
