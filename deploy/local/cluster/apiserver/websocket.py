"""Remote commands over a WebSocket: subprotocols v4.channel.k8s.io and v5.channel.k8s.io.

The first byte of a message names its channel; v5 adds channel 255, whose second byte is a channel that is at its end.
"""

import asyncio
import base64
import hashlib

import wsproto
from wsproto.connection import Connection, ConnectionType
from wsproto.events import BytesMessage, CloseConnection, Ping, TextMessage

from deploy.local.cluster.apiserver.http import Request, Upgraded
from deploy.local.cluster.apiserver.remote_command import ERROR, Message
from deploy.local.cluster.machinery import errors

_KEY_SUFFIX = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455, section 1.3
_PROTOCOLS = ("v5.channel.k8s.io", "v4.channel.k8s.io")
_CLOSE = 255
_READ_BYTES = 65536


def is_wanted(request: Request) -> bool:
    """Whether the client asks for a WebSocket."""
    return request.headers.get("upgrade", "").lower() == "websocket"


def handshake(request: Request) -> dict[str, str]:
    """The headers that accept; raises BadRequest."""
    key, version = request.headers.get("sec-websocket-key"), request.headers.get("sec-websocket-version")
    if not key or version != "13":
        raise errors.bad_request("the request is no WebSocket handshake of version 13")
    offered = [text.strip() for text in request.headers.get("sec-websocket-protocol", "").split(",")]
    chosen = next((protocol for protocol in _PROTOCOLS if protocol in offered), None)
    if chosen is None:
        raise errors.bad_request(f"none of the subprotocols {offered} is spoken here: {', '.join(_PROTOCOLS)}")
    accept = base64.b64encode(hashlib.sha1(key.encode() + _KEY_SUFFIX, usedforsecurity=False).digest()).decode()
    return {
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec-WebSocket-Accept": accept,
        "Sec-WebSocket-Protocol": chosen,
    }


class WebSocketChannels:
    """The channels of one remote command."""

    def __init__(self, connection: Upgraded) -> None:
        self._connection = connection
        self._protocol = Connection(ConnectionType.SERVER, trailing_data=connection.early)
        self._partial = bytearray()
        self._sending = asyncio.Lock()

    async def receive(self) -> Message | None:
        """The client's next message; None when it has gone."""
        while True:
            for event in self._protocol.events():
                if isinstance(event, Ping):
                    await self._send(event.response())
                elif isinstance(event, CloseConnection):
                    await self._send(event.response())
                    return None
                elif isinstance(event, BytesMessage | TextMessage):
                    message = self._message(event)
                    if message is not None:
                        return message
            data = await self._connection.reader.read(_READ_BYTES)
            if not data:
                return None
            self._protocol.receive_data(data)

    async def send(self, channel: int, data: bytes) -> None:
        """Output, or on channel 3 the status."""
        for begin in range(0, len(data), _READ_BYTES):
            part = bytes([channel]) + data[begin : begin + _READ_BYTES]
            await self._send(BytesMessage(data=part, message_finished=True))

    async def finish(self, status: bytes) -> None:
        """The end: the status, then the closing handshake begun."""
        await self.send(ERROR, status)
        await self._send(CloseConnection(code=1000))

    def _message(self, event: BytesMessage | TextMessage) -> Message | None:
        data = event.data
        self._partial += data.encode() if isinstance(data, str) else data
        if not event.message_finished:
            return None
        content, self._partial = bytes(self._partial), bytearray()
        if not content:
            return None
        if content[0] == _CLOSE:
            return Message(content[1], None) if len(content) > 1 else None
        return Message(content[0], content[1:])

    async def _send(self, event: wsproto.events.Event) -> None:
        async with self._sending:  # a message must not be cut in two by another
            self._connection.writer.write(self._protocol.send(event))
            await self._connection.writer.drain()
