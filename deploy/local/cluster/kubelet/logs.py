"""Reading a container's log: the CRI format, and the options of GET …/log."""

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import BinaryIO, cast

from deploy.local.cluster.machinery.objects import now, parse_timestamp

_POLL_SECONDS = 0.1
_READ_BYTES = 262_144


@dataclass(frozen=True, slots=True, kw_only=True)
class LogOptions:
    """What of a log is wanted; None stands for all of it."""

    follow: bool = False
    timestamps: bool = False
    tail_lines: int | None = None
    limit_bytes: int | None = None
    since: datetime | None = None


async def read_log(path: Path, options: LogOptions, *, ended: Callable[[], bool]) -> AsyncIterator[bytes]:
    """Yields the log's text; with `follow` until the container has ended and all was read."""
    left = options.limit_bytes
    async for chunk in _chunks(path, options, ended):
        if left is not None:
            chunk = chunk[:left]  # noqa: PLW2901
            left -= len(chunk)
        if chunk:
            yield chunk
        if left == 0:
            return


def since(seconds: int | None, time: str | None) -> datetime | None:
    """The moment that sinceSeconds or sinceTime means; raises ValueError."""
    if seconds is not None:
        return now() - timedelta(seconds=seconds)
    # the API server passes it on to the node in whole seconds
    return parse_timestamp(time).replace(microsecond=0) if time else None


async def _chunks(path: Path, options: LogOptions, ended: Callable[[], bool]) -> AsyncIterator[bytes]:
    file: BinaryIO | None = None
    rest, records = b"", _Records(options)
    try:
        while True:
            over = ended()  # asked before reading: what was written until then is read below
            if file is None and (file := _open(path)) and options.tail_lines is not None:
                await asyncio.to_thread(_seek_tail, file, options.tail_lines)
            # kept open: a deleted pod's last words are still there to read
            content = await asyncio.to_thread(file.read, _READ_BYTES) if file else b""
            *lines, rest = (rest + content).split(b"\n")
            text = b"".join(records.text(line) for line in lines)
            if text:
                yield text
            if content:
                continue
            if not options.follow or over:
                return
            await asyncio.sleep(_POLL_SECONDS)
    finally:
        if file is not None:
            file.close()


def _seek_tail(file: BinaryIO, lines: int) -> None:
    """To before the last `lines` records that are there, without reading what is before them."""
    at = end = file.seek(0, 2)
    found = -1  # the last one's end is none before it
    while at > 0:
        size = min(_READ_BYTES, at)
        at -= size
        file.seek(at)
        block = file.read(size)
        if found + block.count(b"\n") < lines:
            found += block.count(b"\n")
            continue
        while found < lines:
            end = at + block.rindex(b"\n", 0, min(size, end - at))
            found += 1
        file.seek(end + 1)
        return
    file.seek(0)


def _open(path: Path) -> BinaryIO | None:
    try:
        return cast("BinaryIO", path.open("rb", buffering=0))
    except FileNotFoundError:
        return None


class _Records:
    """The text of one record after the other. A line of several has the time of the first that is told before it."""

    def __init__(self, options: LogOptions) -> None:
        self._options = options
        self._within_line = False

    def text(self, record: bytes) -> bytes:
        moment, _, tail = record.partition(b" ")
        _, tag, text = [*tail.split(b" ", 2), b"", b"", b""][:3]
        goes_on, self._within_line = self._within_line, tag == b"P"
        if self._options.since is not None and parse_timestamp(moment.decode()) < self._options.since:
            return b""
        begin = moment + b" " if self._options.timestamps and not goes_on else b""
        return begin + text + (b"" if tag == b"P" else b"\n")
