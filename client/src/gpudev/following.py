"""Where a followed log goes on after a cut.

The service tells no position in a log. So it is asked for again, and the lines that were told already are found by
their number and text. What comes in doubt is told twice rather than not at all.
"""

import time
from collections import deque
from collections.abc import Callable

KEPT_LINES = 1000
_QUIET_SECONDS = 10.0
"""A lone line end or space after so long is the service's sign of life."""
_MOST_HELD_BYTES = 1 << 25
_KEY_ENDED = b"[gpudev: this answer ends here: "


class LogPosition:
    """Knows what of a log was told: feed it what comes, and it gives what is new.

    Args:
        from_start: What comes after a cut begins where it began at first; else somewhere before.
        stopwatch: Seconds, to tell a sign of life from an empty line.
    """

    def __init__(self, *, from_start: bool, stopwatch: Callable[[], float] = time.monotonic) -> None:
        self._from_start = from_start
        self._stopwatch = stopwatch
        self._told: deque[bytes] = deque(maxlen=KEPT_LINES)
        """Last whole lines, without empty ones, since signs of life are such."""
        self._count = 0
        self._partial = b""
        """Told of the last line, which has no end yet."""
        self._last_at = stopwatch()
        self._begins = True
        """Nothing of the answer has come."""
        self._search: _Search | None = None

    def feed(self, piece: bytes) -> bytes:
        """What of a piece is new."""
        now = self._stopwatch()
        quiet, self._last_at = now - self._last_at, now
        begins, self._begins = self._begins, False
        if begins and piece == b"\n":  # an answer to which there is nothing yet begins so
            return b""
        is_sign_of_life = piece in {b"\n", b" "} and quiet > _QUIET_SECONDS
        if self._search is None:
            return b"" if is_sign_of_life else self._tell(piece)
        if is_sign_of_life:  # all that there is has come, unless the service itself still waits for the log
            return self.end() if self._search.begun else b""
        found = self._search.feed(piece)
        return b"" if found is None else self._join(found)

    def cut(self) -> None:
        """What is fed next comes from a new answer."""
        self._last_at = self._stopwatch()
        self._begins = True
        self._search = _Search(list(self._told), self._count if self._from_start else 0)

    def end(self) -> bytes:
        """What was held back, when nothing more comes."""
        return b"" if self._search is None else self._join(self._search.give_up())

    def _join(self, text: bytes) -> bytes:
        """New text after a cut: the rest of an unfinished line, or what begins a line of its own."""
        self._search = None
        shown = self._partial.rstrip(b" ")
        if not shown:
            return self._tell(text)
        if text.startswith(shown):
            return self._tell(text[len(shown) :])
        return self._tell(b"\n" + text) if text else b""

    def _tell(self, text: bytes) -> bytes:
        *lines, self._partial = (self._partial + text).split(b"\n")
        kept = [line.rstrip() for line in lines if line.strip() and not line.startswith(_KEY_ENDED)]
        self._told.extend(kept)
        self._count += len(kept)
        return text


class _Search:
    """Looks in what comes for the lines that were told.

    Args:
        lines: The last ones.
        count: So many lines come at least before the new ones.
    """

    def __init__(self, lines: list[bytes], count: int) -> None:
        self._lines = lines
        self._count = count
        self._buffer = b""
        self._seen: list[tuple[bytes, int]] = []
        """Lines that are not empty, and where in the buffer each ends."""
        self._at = 0

    @property
    def begun(self) -> bool:
        """Whether anything has come."""
        return bool(self._buffer)

    def feed(self, piece: bytes) -> bytes | None:
        """What follows the told lines; None while they have not all come."""
        self._buffer += piece
        if not self._lines:
            return self._buffer
        while (end := self._buffer.find(b"\n", self._at)) >= 0:
            line = self._buffer[self._at : end].rstrip()
            self._at = end + 1
            if line:
                self._seen.append((line, self._at))
            if line == self._lines[-1] and len(self._seen) >= self._count and self._ends_with(len(self._lines)):
                return self._buffer[self._at :]
        return self.give_up() if len(self._buffer) > _MOST_HELD_BYTES else None

    def give_up(self) -> bytes:
        """What follows the longest run of told lines that is there; everything when there is none."""
        seen = [line for line, _ in self._seen]
        size = len(self._lines)
        while size:
            run = self._lines[-size:]
            for place in range(size, len(seen) + 1):
                if seen[place - 1] == run[-1] and seen[place - size : place] == run:
                    return self._buffer[self._seen[place - 1][1] :]
            size //= 2
        return self._buffer

    def _ends_with(self, size: int) -> bool:
        return [line for line, _ in self._seen[-size:]] == self._lines
