"""Where the last lines of a log begin. Kubernetes counts records, of which one line may have many."""

from array import array
from datetime import UTC, datetime, timedelta

import msgspec

from services.jobs.domain.log_lines import HEAD_BYTES, read_stamp
from services.jobs.domain.log_marks import CUT

_RECORD_BYTES = 8 * 1024
"""Runtimes write longer lines as several records, of so much at least."""
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_LATEST = 1 << 63


class Position(msgspec.Struct, frozen=True):
    """The record after which lines begin that are wanted."""

    nanoseconds: int
    """Its time, since 1970."""
    same: int
    """How many records up to it have that time."""

    @property
    def raw(self) -> bytes:
        """Its time as it would be written."""
        seconds, fraction = divmod(self.nanoseconds, 1_000_000_000)
        return f"{_EPOCH + timedelta(seconds=seconds):%Y-%m-%dT%H:%M:%S}.{fraction:09d}Z".encode()


class TailFinder:
    """Looks for the place in the last records of a log, which are fed to it; takes 8 bytes a line.

    Args:
        count: Lines that are wanted, at least one.
    """

    def __init__(self, count: int) -> None:
        self._count = count
        self._ends = array("q")
        """Times of the records with which lines have ended."""
        self.records = 0
        """That were fed, at most."""
        # the record that is coming
        self._head, self._length, self._last = b"", 0, b""
        self._goes_on = False

    def feed(self, chunk: bytes) -> None:
        """Read on: the next piece of the log."""
        *ended, rest = chunk.split(b"\n")
        for piece in ended:
            self._take(piece)
            self._end()
        self._take(rest)

    def position(self, *, whole: bool) -> Position | None:
        """None: not among what was fed, which is the whole log or only its end."""
        unfinished = self._goes_on or self._length > 0
        at = len(self._ends) - 1 - self._count + unfinished
        if at < (0 if whole else 1):  # the first record of an end may be the rest of one
            return None
        nanoseconds, same = self._ends[at], 1
        while same <= at and self._ends[at - same] == nanoseconds:
            same += 1
        return Position(nanoseconds, same)

    def _take(self, piece: bytes) -> None:
        self._head += piece[: HEAD_BYTES - len(self._head)]
        self._length += len(piece)
        self._last = piece[-1:] or self._last

    def _end(self) -> None:
        stamp = read_stamp(self._head.partition(b" ")[0])
        self.records += 1 + self._length // _RECORD_BYTES
        if stamp is not None and abs(stamp.nanoseconds) < _LATEST:
            self._goes_on = self._last == CUT
            if not self._goes_on:
                self._ends.append(stamp.nanoseconds)
        self._head, self._length, self._last = b"", 0, b""
