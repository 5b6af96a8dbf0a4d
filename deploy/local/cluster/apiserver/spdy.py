"""Remote commands over SPDY/3.1, as `kubectl exec` of versions before 1.31 speaks it.

Frames: https://www.chromium.org/spdy/spdy-protocol/spdy-protocol-draft3-1/. Each channel is a stream that the client
opens, named by its header `streamtype`. There are no windows: the clients of Kubernetes keep none.
"""

import asyncio
import struct
import zlib
from collections.abc import Iterator

from deploy.local.cluster.apiserver.http import Request, Upgraded
from deploy.local.cluster.apiserver.remote_command import ERROR, RESIZE, STDERR, STDIN, STDOUT, Message
from deploy.local.cluster.machinery import errors

UPGRADE = "SPDY/3.1"
_PROTOCOL = "v4.channel.k8s.io"
_VERSION = 3
_CONTROL = 0x8000
SYN_STREAM, SYN_REPLY, RST_STREAM, PING, GOAWAY = 1, 2, 3, 6, 7
FIN = 1
_LONGEST_FRAME = 1 << 20
_DATA_BYTES = 65536
_OPEN_SECONDS = 30.0
_CHANNELS = {"stdin": STDIN, "stdout": STDOUT, "stderr": STDERR, "error": ERROR, "resize": RESIZE}
_WORDS = (
    "options head post put delete trace accept accept-charset accept-encoding accept-language accept-ranges age allow "
    "authorization cache-control connection content-base content-encoding content-language content-length "
    "content-location content-md5 content-range content-type date etag expect expires from host if-match "
    "if-modified-since if-none-match if-range if-unmodified-since last-modified location max-forwards pragma "
    "proxy-authenticate proxy-authorization range referer retry-after server te trailer transfer-encoding upgrade "
    "user-agent vary via warning www-authenticate method get status 200|OK version HTTP/1.1 url public set-cookie "
    "keep-alive origin"
)
_TEXT = (
    "100101201202205206300302303304305306307402405406407408409410411412413414415416417502504505"
    "203 Non-Authoritative Information204 No Content301 Moved Permanently400 Bad Request401 Unauthorized403 Forbidden"
    "404 Not Found500 Internal Server Error501 Not Implemented503 Service UnavailableJan Feb Mar Apr May Jun Jul Aug "
    "Sept Oct Nov Dec 00:00:00 Mon, Tue, Wed, Thu, Fri, Sat, Sun, GMTchunked,text/html,image/png,image/jpg,image/gif,"
    "application/xml,application/xhtml+xml,text/plain,text/javascript,publicprivatemax-age=gzip,deflate,sdchcharset="
    "utf-8charset=iso-8859-1,utf-,*,enq=0."
)
DICTIONARY = b"".join(struct.pack(">I", len(w)) + w.replace("|", " ").encode() for w in _WORDS.split()) + _TEXT.encode()
"""What both sides' zlib begins with, by section 2.6.10.1."""


def is_wanted(request: Request) -> bool:
    """Whether the client asks for SPDY."""
    return request.headers.get("upgrade", "").upper() == UPGRADE


def handshake(request: Request) -> dict[str, str]:
    """The headers that accept; raises BadRequest."""
    offered = [text.strip() for text in request.headers.get("x-stream-protocol-version", "").split(",")]
    if _PROTOCOL not in offered:
        raise errors.bad_request(f"none of the protocols {offered} is spoken here: {_PROTOCOL}")
    return {"Upgrade": UPGRADE, "Connection": "Upgrade", "X-Stream-Protocol-Version": _PROTOCOL}


class SpdyChannels:
    """The channels of one remote command.

    Args:
        expected: How many streams the client will open.
        connection: That has just left HTTP.
    """

    def __init__(self, expected: int, connection: Upgraded) -> None:
        self._expected, self._connection = expected, connection
        self._received = bytearray(connection.early)
        self._inflate, self._deflate = zlib.decompressobj(zdict=DICTIONARY), zlib.compressobj(zdict=DICTIONARY)
        self._streams: dict[int, int] = {}  # channel by stream
        self._messages: list[Message] = []
        self._sending = asyncio.Lock()

    async def open(self) -> None:
        """Waits until the client has made its channels, or has gone, or takes too long."""
        async with asyncio.timeout(_OPEN_SECONDS):
            while len(self._streams) < self._expected and await self._read():
                pass

    async def receive(self) -> Message | None:
        """The client's next message; None when it has gone."""
        while not self._messages:
            if not await self._read():
                return None
        return self._messages.pop(0)

    async def send(self, channel: int, data: bytes) -> None:
        """Output; what the client has no stream for is dropped."""
        for stream in self._streams_of(channel):
            for begin in range(0, len(data), _DATA_BYTES):
                await self._send(stream, 0, data[begin : begin + _DATA_BYTES])

    async def finish(self, status: bytes) -> None:
        """The status, then the end of every stream."""
        await self.send(ERROR, status)
        for stream in self._streams:
            await self._send(stream, FIN, b"")

    def _streams_of(self, channel: int) -> list[int]:
        return [stream for stream, name in self._streams.items() if name == channel]

    async def _read(self) -> bool:
        """Take what comes; False at the end."""
        data = await self._connection.reader.read(_DATA_BYTES)
        self._received += data
        while (frame := self._next_frame()) is not None:
            first, flags, body = frame
            if first >> 16 & _CONTROL:
                if first & 0xFFFF == GOAWAY:
                    return False
                await self._control(first & 0xFFFF, flags, body)
            else:
                self._data(first, flags, body)
        return bool(data)

    def _next_frame(self) -> tuple[int, int, bytes] | None:
        if len(self._received) < 8:  # noqa: PLR2004  a frame's head
            return None
        first, second = struct.unpack_from(">II", self._received)
        length = second & 0xFFFFFF
        if length > _LONGEST_FRAME:
            raise ConnectionError("a frame is too long")
        if len(self._received) < 8 + length:
            return None
        body = bytes(self._received[8 : 8 + length])
        del self._received[: 8 + length]
        return first, second >> 24, body

    def _data(self, stream: int, flags: int, body: bytes) -> None:
        channel = self._streams.get(stream)
        if channel is None:
            return
        if body:
            self._messages.append(Message(channel, body))
        if flags & FIN:
            self._messages.append(Message(channel, None))

    async def _control(self, kind: int, flags: int, body: bytes) -> None:
        if kind == PING:
            await self._write(_frame(PING, body))
        elif kind == SYN_STREAM:
            stream = struct.unpack_from(">I", body)[0]
            name = dict(_pairs(self._inflate.decompress(body[10:]))).get("streamtype", "")
            if name not in _CHANNELS:
                await self._write(_frame(RST_STREAM, struct.pack(">II", stream, 1)))
                return
            self._streams[stream] = _CHANNELS[name]
            await self._reply(stream)
            if flags & FIN:
                self._messages.append(Message(_CHANNELS[name], None))

    async def _reply(self, stream: int) -> None:
        headers = self._deflate.compress(struct.pack(">I", 0)) + self._deflate.flush(zlib.Z_SYNC_FLUSH)
        await self._write(_frame(SYN_REPLY, struct.pack(">I", stream) + headers))

    async def _send(self, stream: int, flags: int, data: bytes) -> None:
        await self._write(struct.pack(">II", stream, flags << 24 | len(data)) + data)

    async def _write(self, frame: bytes) -> None:
        async with self._sending:
            self._connection.writer.write(frame)
            await self._connection.writer.drain()


def _frame(kind: int, body: bytes) -> bytes:
    return struct.pack(">HHI", _CONTROL | _VERSION, kind, len(body)) + body


def _pairs(block: bytes) -> Iterator[tuple[str, str]]:
    """Names and values of a header block."""
    count, at = struct.unpack_from(">I", block)[0], 4
    for _ in range(count):
        texts = []
        for _ in range(2):
            length = struct.unpack_from(">I", block, at)[0]
            texts.append(block[at + 4 : at + 4 + length].decode())
            at += 4 + length
        yield texts[0].lower(), texts[1]
