"""Lines of a container's log as Kubernetes sends them, with times: one reading of it over many connections.

Each line is `<RFC 3339 time with nanoseconds> <text>`. Text is given out as it comes, also of a line that has no end
yet: a progress bar is one line for hours. A reading that broke is taken up by the time of the last line, the number of
lines that had it and how much of the last one was told, so that nothing is lost or told twice. Times of one log never
fall.

Where the tools have ended a record before its line (`log_marks`), the line is put together again.

The end of a log that is kept (`LastLines`) says in two more forms what was left out: `<time>!<n> ` is for all lines up
to the n-th that had that time, `<time>+<n> <text>` is a line without its first n bytes.
"""

import re
from datetime import UTC, datetime, timedelta

import msgspec

from services.jobs.domain.log_marks import CUT, MARKS

KEPT_BYTES = 1 << 20
"""Of text that is kept of a job that has ended: the last ones."""
RECORD_BYTES = 16 * 1024
"""Of a longer line container runtimes write so much at a time."""
_PART_BYTES = 8 * 1024
"""Records of runtimes end at multiples of it; kubelets before 1.27 repeat the time there."""
HEAD_BYTES = 64
"""What has no time in its first bytes is no line."""
_STAMP = re.compile(rb"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?(Z|[+-]\d\d:\d\d)(?:([!+])(\d{1,18}))?")
_QUICK_STAMP = re.compile(rb"[0-9]{4}-[0-9T:.-]{15,26}(?:Z|[+-]\d\d:\d\d) ")
_REPEATED_STAMP = re.compile(rb"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)\.(\d{1,9})(Z|[+-]\d\d:\d\d) ")
_STAMP_BEGUN = re.compile(rb"[0-9][0-9TZ:.+-]{0,35}")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

EARLIER_LEFT_OUT = b"[gpudev: what was printed before this is not kept]\n"
NOT_KEPT = b"[gpudev: the log of this job could not be kept]\n"
GAP = b"[gpudev: lines may be missing here: the node no longer had them]\n"


def line_part_left_out(count: int) -> bytes:
    """Stands for the first bytes of a line."""
    return b"[gpudev: %d bytes of this line are left out]" % count


class Stamp(msgspec.Struct, frozen=True):
    """What a line begins with."""

    text: bytes
    """The time as it is written."""
    nanoseconds: int
    """Since 1970."""
    form: bytes
    """Empty, or ! or +."""
    count: int


class LineReader:
    """Takes in what connections bring and gives out the text that is new.

    Args:
        since: Lines before it are left out; None: from the beginning.
        pass_over: The first record is only the place from which on text is wanted.
        has_marks: What comes has marks of the tools.
    """

    def __init__(self, since: datetime | None = None, *, pass_over: bool = False, has_marks: bool = True) -> None:
        self.since = since
        self._since = None if since is None else _nanoseconds_of(since)
        self._pass_over = pass_over
        self.saw_other = False
        """There was something else than lines, such as what a kubelet says in place of a log that it has lost."""
        # how far it was told
        self._last_raw: bytes | None = None
        self._same = 0
        self._told = 0
        self._open = False
        self._goes_on = False
        # of the connection
        self._resuming = False
        self._seen = 0
        # of the line
        self._head: bytes | None = b""
        self._silent = False
        self._skip = 0
        self._text = LineText(has_marks=has_marks)

    @property
    def last_time(self) -> datetime | None:
        """Time of the last line that was begun, to the microsecond before it; None before the first."""
        last = self._last
        return None if last is None else _EPOCH + timedelta(microseconds=last // 1000)

    def take_up(self, *, has_marks: bool = True) -> None:
        """What comes next is from a new connection: it may repeat what was told, and begins with a whole line."""
        self._text.has_marks = has_marks
        self._resuming, self._seen = self._last is not None, 0
        self._begin_head()

    def begin_after(self, raw: bytes, same: int) -> None:
        """As if all had been told up to the last of so many records that have this time, unless `since` is later."""
        stamp = read_stamp(raw)
        if self._since is None or (stamp is not None and stamp.nanoseconds >= self._since):
            self._last_raw, self._same = raw, same

    def want_all(self) -> None:
        """There was nothing to pass over."""
        self._pass_over = False

    def feed(self, chunk: bytes) -> bytes:
        """The new text in it."""
        *ended, rest = chunk.split(b"\n")
        told = []
        for piece in ended:
            is_plain = self._is_plain and len(piece) < _PART_BYTES and not piece.endswith(MARKS)
            if is_plain and (end := stamp_end(piece)):
                self._same = self._same + 1 if self._last_raw == piece[:end] else 1
                self._last_raw, self._goes_on = piece[:end], False
                told.append(piece[end + 1 :] + b"\n")
            else:
                told += (self._take(piece), self._end())
        told.append(self._take(rest))
        return b"".join(told)

    @property
    def _is_plain(self) -> bool:
        """A line begins, and is told whatever it is."""
        return self._head == b"" and not (self._open or self._resuming or self._pass_over or self._since is not None)

    @property
    def _last(self) -> int | None:
        """Time of the last line that was begun, in nanoseconds."""
        stamp = None if self._last_raw is None else read_stamp(self._last_raw)
        return None if stamp is None else stamp.nanoseconds

    def finish(self) -> bytes:
        """What was held back, when the log is over."""
        return self._tell(self._text.finish())

    def _begin_head(self) -> None:
        self._head, self._silent, self._skip = b"", False, 0

    def _take(self, piece: bytes) -> bytes:
        if self._head is not None:
            self._head += piece
            stamp, space, text = self._head.partition(b" ")
            if not space and len(self._head) <= HEAD_BYTES:
                return b""
            self._head = None
            return self._begin(stamp) + self._add(text)
        return self._add(piece)

    def _end(self) -> bytes:
        """A line is at its end."""
        begun = b"" if self._head is None else self._begin(self._head)
        held, goes_on = self._text.end()
        rest = self._tell(held)
        silent = self._silent or self._skip > 0
        if not self._silent:
            self._open, self._goes_on = False, goes_on
        self._begin_head()
        return begun + rest + (b"" if silent or goes_on else b"\n")

    def _begin(self, raw: bytes) -> bytes:
        """A line begins; what is to be said before its text."""
        stamp = read_stamp(raw)
        self._silent = True
        self._text.begin()
        if stamp is None:
            self.saw_other |= bool(raw)
            return b""
        if self._since is not None and stamp.nanoseconds < self._since:
            return b""
        self._since = None
        last = self._last
        if stamp.form == b"!":
            return self._miss(stamp, last)
        if self._resuming and last is not None and stamp.nanoseconds <= last:
            return self._find(stamp, last)
        return self._begin_new(stamp, last)

    def _find(self, stamp: Stamp, last: int) -> bytes:
        """A line that was told, or the one that was told in part."""
        if stamp.nanoseconds != last:
            return b""
        self._seen += 1
        if self._seen < self._same:
            return b""
        self._resuming = False
        if not self._open:
            return b""
        self._silent = False
        return self._continue_at(stamp)

    def _begin_new(self, stamp: Stamp, last: int | None) -> bytes:
        gap = GAP if self._resuming else b""
        mark = (b"\n" if gap and (self._open or self._goes_on) else b"") + gap
        self._resuming, self._silent = False, False
        self._same = self._same + 1 if stamp.nanoseconds == last else 1
        self._last_raw, self._told, self._open = stamp.text, 0, True
        if self._pass_over:
            self._pass_over, self._skip = False, RECORD_BYTES
            self._text.begin(stamp.nanoseconds)
            return mark
        return mark + self._continue_at(stamp)

    def _continue_at(self, stamp: Stamp) -> bytes:
        """The line comes from an offset on, and is told from where it was told."""
        offset = stamp.count
        self._text.begin(stamp.nanoseconds, offset)
        if self._told >= offset:
            self._skip = self._told - offset
            return b""
        left_out, self._told = offset - self._told, offset
        return line_part_left_out(left_out)

    def _miss(self, stamp: Stamp, last: int | None) -> bytes:
        """Lines up to one were left out: those that were told are missed by nobody."""
        if self._resuming and last is not None:
            told = self._same - self._open
            if (last, told) >= (stamp.nanoseconds, stamp.count):
                self._seen += stamp.count if stamp.nanoseconds == last else 0
                self._resuming = self._seen < self._same
                return b""
        begin = b"\n" if self._goes_on or (self._open and self._told) else b""
        self._resuming, self._open, self._goes_on = False, False, False
        self._same = max(self._same if stamp.nanoseconds == last else 0, stamp.count)
        self._last_raw = stamp.text
        return begin + EARLIER_LEFT_OUT

    def _add(self, text: bytes) -> bytes:
        return b"" if self._silent else self._tell(self._text.feed(text))

    def _tell(self, text: bytes) -> bytes:
        skipped = min(self._skip, len(text))
        self._skip -= skipped
        self._told = max(self._told, self._text.offset)
        return text[skipped:]


class LineText:
    """The text of one line after another, piece by piece, without the times that stand between a line's records.

    Args:
        has_marks: A mark of the tools at the end of a line is none of its text.
    """

    def __init__(self, *, has_marks: bool = False) -> None:
        self.has_marks = has_marks
        self.offset = 0
        """Bytes of the line so far."""
        self._since: int | None = None
        self._held = b""

    def begin(self, since: int | None = None, offset: int = 0) -> None:
        """A line begins, or goes on at `offset`; `since`: its time, None when it is not known."""
        self._since, self.offset, self._held = since, offset, b""

    def feed(self, text: bytes) -> bytes:
        """What of it is the line's; a beginning of a time is held back, and what may be a mark at the line's end."""
        told = self._without_times(text)
        if self.has_marks and told.endswith(MARKS):
            self._held = told[-1:] + self._held
            self.offset -= 1
            return told[:-1]
        return told

    def _without_times(self, text: bytes) -> bytes:
        text, self._held = self._held + text, b""
        told = []
        while text:
            room = _PART_BYTES - self.offset % _PART_BYTES
            if room == _PART_BYTES and self.offset:
                repeated = _REPEATED_STAMP.match(text)
                if repeated and self._is_later(repeated):
                    text = text[repeated.end() :]
                    if not text:
                        break
                elif not repeated and _STAMP_BEGUN.fullmatch(text):
                    self._held = text
                    break
            told.append(text[:room])
            self.offset += len(told[-1])
            text = text[room:]
        return b"".join(told)

    def end(self) -> tuple[bytes, bool]:
        """The line is over: what was held back of it, and whether its text goes on in the next one."""
        goes_on = self.has_marks and self._held == CUT
        return self.finish(), goes_on

    def finish(self) -> bytes:
        """What was held back, when nothing more comes."""
        held, self._held = self._held, b""
        if self.has_marks and held in MARKS:
            return b""
        self.offset += len(held)
        return held

    def _is_later(self, found: "re.Match[bytes]") -> bool:
        moment = _moment_of(found)
        return moment is not None and self._since is not None and moment >= self._since


def last_lines(content: bytes, count: int | None) -> bytes:
    """The last `count` lines; None: all."""
    if count is None:
        return content
    # not splitlines: a carriage return ends no line
    *lines, rest = content.split(b"\n")
    whole = [line + b"\n" for line in lines] + ([rest] if rest else [])
    return b"".join(whole[-count:]) if count else b""


def stamp_end(line: bytes) -> int:
    """Where the time ends that a line begins with; 0 when it begins with none, at a quick look."""
    found = _QUICK_STAMP.match(line)
    return found.end() - 1 if found else 0


def read_stamp(raw: bytes) -> Stamp | None:
    """The time before a line's text; None when it is none."""
    found = _STAMP.fullmatch(raw)
    moment = None if found is None else _moment_of(found)
    if found is None or moment is None:
        return None
    return Stamp(raw[: found.end(3)], moment, found[4] or b"", int(found[5] or 0))


def _moment_of(found: "re.Match[bytes]") -> int | None:
    """Nanoseconds since 1970; None when there is no such time."""
    try:
        second = datetime.fromisoformat((found[1] + found[3]).decode())
    except ValueError:
        return None
    return _nanoseconds_of(second) + int((found[2] or b"").ljust(9, b"0"))


def _nanoseconds_of(moment: datetime) -> int:
    # not timestamp(): that is a float
    return (moment - _EPOCH) // timedelta(microseconds=1) * 1000
