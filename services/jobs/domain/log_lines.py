"""Lines of a container's log as Kubernetes tells them with times: one reading of it over many connections.

Each line is `<RFC 3339 time with nanoseconds> <text>`. A reading that broke is taken up by the time of the last line
and the number of lines that had it, so that none is lost or told twice. Times of one log never fall.
"""

import re
from collections import deque
from datetime import datetime

MAX_LINE_BYTES = 1 << 20
"""What a line has beyond it is cut off."""
KEPT_BYTES = 1 << 20
"""Of text that is kept of a job that has ended: the last ones."""
_KEPT_WITH_TIMES = 8 * KEPT_BYTES
"""A time takes 31 bytes: where lines have less than five of their own, a little less text is kept."""
_STAMP = re.compile(rb"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?(Z|[+-]\d\d:\d\d)")


class LineReader:
    """Takes in what connections bring and gives out the text of the lines that are new.

    Args:
        since: Lines before it are left out; None: from the beginning.
    """

    def __init__(self, since: datetime | None = None) -> None:
        self.since = since
        self._since = None if since is None else round(since.timestamp() * 1_000_000) * 1000
        self._rest = b""
        self._last: bytes | None = None
        self._same = 0
        self._to_skip = 0
        self._skipping = since is not None

    @property
    def last_time(self) -> datetime | None:
        """Time of the last line that was given out; None before the first."""
        return _moment(self._last) if self._last is not None else None

    def take_up(self) -> None:
        """What comes next is from a new connection: it may repeat what was told, and begins with a whole line."""
        self._rest = b""
        self._to_skip = self._same
        self._skipping = self._since is not None or self._last is not None

    def feed(self, chunk: bytes) -> bytes:
        """Text of the new lines that are complete now."""
        whole, newline, rest = chunk.rpartition(b"\n")
        if not newline:
            self._rest = (self._rest + chunk)[:MAX_LINE_BYTES]
            return b""
        lines = (self._rest + whole).split(b"\n")
        self._rest = rest[:MAX_LINE_BYTES]
        return b"".join(text + b"\n" for line in lines if (text := self._new_text(line)) is not None)

    def finish(self) -> bytes:
        """Text of a last line without an end, when the log is over."""
        rest, self._rest = self._rest, b""
        return self._new_text(rest) or b""

    def _new_text(self, line: bytes) -> bytes | None:
        stamp, _, text = line[:MAX_LINE_BYTES].partition(b" ")
        if not _STAMP.fullmatch(stamp):  # what a kubelet says of itself, such as that it has no log
            return None
        if self._skipping and self._is_old(stamp):
            return None
        self._same = self._same + 1 if stamp == self._last else 1
        self._last = stamp
        return text

    def _is_old(self, stamp: bytes) -> bool:
        moment = _nanoseconds(stamp)
        if self._since is not None and moment < self._since:
            return True
        last = None if self._last is None else _nanoseconds(self._last)
        if last is not None and moment < last:
            return True
        if last == moment and self._to_skip:
            self._to_skip -= 1
            return True
        self._skipping = False
        return False


class LastLines:
    """The last lines of a log, as many as hold the last `KEPT_BYTES` of text, with their times."""

    def __init__(self) -> None:
        self._lines: deque[bytes] = deque()
        self._rest = b""
        self._bytes = 0
        self._text_bytes = 0

    def feed(self, chunk: bytes) -> None:
        """Take in what comes next."""
        *lines, rest = (self._rest + chunk).split(b"\n")
        self._rest = rest[:MAX_LINE_BYTES]
        for line in lines:
            self._add(line[:MAX_LINE_BYTES] + b"\n")

    def content(self) -> bytes:
        """The lines."""
        return b"".join(self._lines) + self._rest

    def _add(self, line: bytes) -> None:
        self._lines.append(line)
        self._bytes += len(line)
        self._text_bytes += _text_bytes(line)
        while self._bytes > _KEPT_WITH_TIMES or self._text_bytes - _text_bytes(self._lines[0]) >= KEPT_BYTES:
            first = self._lines.popleft()
            self._bytes -= len(first)
            self._text_bytes -= _text_bytes(first)


def last_lines(content: bytes, count: int | None) -> bytes:
    """The last `count` lines; None: all."""
    if count is None:
        return content
    # not splitlines: a carriage return ends no line
    *lines, rest = content.split(b"\n")
    whole = [line + b"\n" for line in lines] + ([rest] if rest else [])
    return b"".join(whole[-count:]) if count else b""


def _text_bytes(line: bytes) -> int:
    return len(line) - line.find(b" ") - 1


def _moment(stamp: bytes) -> datetime:
    return datetime.fromisoformat(stamp.decode())


def _nanoseconds(stamp: bytes) -> int:
    found = _STAMP.fullmatch(stamp)
    assert found is not None  # noqa: S101 - checked when the line was read
    seconds = int(datetime.fromisoformat((found[1] + found[3]).decode()).timestamp())
    return seconds * 1_000_000_000 + int((found[2] or b"").ljust(9, b"0"))
