"""The end of a log, as it is kept when its pod is gone."""

from collections import deque

from services.jobs.domain.log_lines import HEAD_BYTES, KEPT_BYTES, LineText, Stamp, read_stamp, stamp_end
from services.jobs.domain.log_marks import MARKS, marked, told_bytes

FIRST_TAIL = 64
"""Records of a log, from its end, that are never much more than what is kept."""
_LONGEST_TAIL = KEPT_BYTES // 2
"""Records that hold what is kept: each has at least a character and its end."""
_LEAST_GROWTH, _MOST_GROWTH, _MARGIN = 4, 64, 1.1
_KEPT_WITH_TIMES = 8 * KEPT_BYTES
"""A time takes 31 bytes: where lines have less than five of their own, a little less text is kept."""
_RECORD_BYTES = 8 * 1024
"""Runtimes write longer lines as several records, of so much at least."""
_NEWER_RECORDS = 2048
"""A command may print while it is ended."""


_Line = tuple[bytes, int, bytes]
"""Its time, the bytes of its beginning that were left out, the rest of its text."""


class LastLines:
    """The last lines of a log, as many as hold the last `KEPT_BYTES` of text, with their times and the tools' marks.

    Takes bounded memory, however long lines are.

    Args:
        has_marks: What comes has marks; else they are added, so that whatever is kept is read alike.
    """

    def __init__(self, *, has_marks: bool = True) -> None:
        self._has_marks = has_marks
        self._lines: deque[_Line] = deque()
        self._bytes = 0
        self._text_bytes = 0
        self.records = 0
        """Records of the log that came in, at most."""
        self.saw_other = False
        """There was something else than lines, such as what a kubelet says in place of a log that it has lost."""
        self._left_out: bytes | None = None
        self._left_out_count = 0
        # the line that is coming
        self._head: bytes | None = b""
        self._stamp: Stamp | None = None
        self._raw_stamp = b""
        self._line = LineText()
        self._text = bytearray()
        self._cut = 0

    def feed(self, chunk: bytes) -> None:
        """Read on: the next piece of the log."""
        *ended, rest = chunk.split(b"\n")
        for piece in ended:
            is_plain = self._head == b"" and len(piece) < _RECORD_BYTES and not piece.endswith(MARKS)
            if is_plain and (end := stamp_end(piece)):
                self._keep((piece[:end], 0, piece[end + 1 :] + b"\n"))
            else:
                self._take(piece)
                self._end(b"\n")
        self._take(rest)

    def finish(self) -> None:
        """Nothing more comes."""
        self._end(b"")

    @property
    def is_enough(self) -> bool:
        """Whether it is all that would be kept, even if the first line is only a part of one."""
        return self._left_out is not None or self.sure_bytes >= KEPT_BYTES

    @property
    def sure_bytes(self) -> int:
        """Of text that is kept, without the first line."""
        return self._text_bytes - told_bytes(self._lines[0][2]) if self._lines else 0

    def content(self, *, limited: bool) -> bytes:
        """The lines, after a note of what was left out; asked for once, at the end.

        Args:
            limited: There may be more before the first one, and that itself may be a part of a line.
        """
        if limited and self._left_out is None and self._lines:
            self._note_left_out((self._lines.popleft() if len(self._lines) > 1 else self._lines[0])[0])
        note = b"" if self._left_out is None else b"%b!%d \n" % (self._left_out, self._left_out_count)
        return note + b"".join(map(_stored, self._lines))

    def _take(self, piece: bytes) -> None:
        if self._head is None:
            self._add(self._line.feed(piece) if self._stamp else b"")
            return
        self._head += piece
        stamp, space, text = self._head.partition(b" ")
        if space or len(self._head) > HEAD_BYTES:
            self._begin(stamp)
            self._add(self._line.feed(text) if self._stamp else b"")

    def _begin(self, raw: bytes) -> None:
        self._head, self._stamp, self._raw_stamp = None, read_stamp(raw), raw
        self._line.begin(self._stamp.nanoseconds if self._stamp else None)
        self.saw_other |= self._stamp is None

    def _add(self, text: bytes) -> None:
        self._text += text
        if len(self._text) > 2 * KEPT_BYTES:
            self._shorten()

    def _shorten(self) -> None:
        beyond = max(0, len(self._text) - KEPT_BYTES)
        del self._text[:beyond]
        self._cut += beyond

    def _end(self, ending: bytes) -> None:
        if self._head:
            self._begin(self._head)
        if self._stamp is not None:
            self._add(self._line.finish())
            self._shorten()
            text = bytes(self._text)
            self._keep((self._raw_stamp, self._cut, (text if self._has_marks else marked(text)) + ending))
        self._head, self._stamp, self._cut = b"", None, 0
        self._text.clear()

    def _keep(self, line: _Line) -> None:
        stamp, cut, text = line
        self._lines.append(line)
        self.records += 1 + (cut + len(text)) // _RECORD_BYTES
        self._bytes += len(stamp) + len(text)
        self._text_bytes += told_bytes(text)
        while self._bytes > _KEPT_WITH_TIMES or self.sure_bytes >= KEPT_BYTES:
            stamp, _, text = self._lines.popleft()
            self._bytes -= len(stamp) + len(text)
            self._text_bytes -= told_bytes(text)
            self._note_left_out(stamp)

    def _note_left_out(self, stamp: bytes) -> None:
        self._left_out_count = self._left_out_count + 1 if self._left_out == stamp else 1
        self._left_out = stamp


def _stored(line: _Line) -> bytes:
    stamp, cut, text = line
    return b"%b+%d %b" % (stamp, cut, text) if cut else b"%b %b" % (stamp, text)


def next_tail(tail: int, lines: LastLines) -> int:
    """How many records to ask for when `tail` were `lines`, and these not enough."""
    estimate = int(tail * _MARGIN * KEPT_BYTES / lines.sure_bytes) if lines.sure_bytes else 0
    return min(_LONGEST_TAIL, _MOST_GROWTH * tail, max(_LEAST_GROWTH * tail, estimate))


def tail_that_holds(content: bytes) -> int | None:
    """How many records of the log hold what was kept of it, and what has been printed since; None: all."""
    lines = content.split(b"\n")
    first = read_stamp(lines[0].partition(b" ")[0])
    if first is None or not first.form:
        return None
    return _NEWER_RECORDS + sum(1 + len(line) // _RECORD_BYTES for line in lines)
