"""Server-sent events out of the bytes in which they come."""

from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class SentEvent:
    kind: str
    """Empty for an ordinary one."""
    data: bytes
    last_id: str | None
    """What to ask after, once this was taken."""


class EventParser:
    """Feed it what comes, and it gives the events that are whole.

    Args:
        last_id: What was asked after; None: nothing.
    """

    def __init__(self, last_id: str | None = None) -> None:
        self._rest = b""
        self.last_id = last_id
        """Of the last event or sign of life."""

    def feed(self, piece: bytes) -> Iterator[SentEvent]:
        """Events that end in this piece."""
        *blocks, self._rest = (self._rest + piece).split(b"\n\n")
        for block in blocks:
            fields = dict(line.split(b": ", 1) for line in block.split(b"\n") if b": " in line)
            if b"id" in fields:
                self.last_id = fields[b"id"].decode()
            if b"data" in fields:
                yield SentEvent(fields.get(b"event", b"").decode(), fields[b"data"], self.last_id)

    def cut(self) -> None:
        """What is fed next comes from a new answer."""
        self._rest = b""
