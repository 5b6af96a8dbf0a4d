"""WebSockets that begin as requests.

An upgrade is a GET (RFC 6455 section 4.1). So a route that speaks WebSocket is a GET handler that answers with
`Upgraded`: keys, paths, refusals, request ids and the API document are those of every route, and a refusal is an answer
of HTTP, which a client can read.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from litestar import Request, Response
from litestar.enums import ScopeType
from litestar.types import ASGIApp, Receive, Scope, Send

from shared.errors import ErrorKind, GpuDevError
from shared.web.drain import Drain

SWITCHING_PROTOCOLS = 101
_SOCKET = "gpudev.socket"


class UpgradeRequired(GpuDevError):
    """The route speaks WebSocket alone (RFC 9110 section 15.5.22)."""

    kind = ErrorKind.UPGRADE_REQUIRED

    def __init__(self) -> None:
        super().__init__("This route speaks WebSocket: connect with a WebSocket client, or with `gpudev ssh`")


class Socket:
    """A client's WebSocket."""

    def __init__(self, receive: Receive, send: Send, answer: Send, drain: Drain) -> None:
        self._receive = receive
        self._send = send
        self._answer = answer
        self._drain = drain
        self._sending = asyncio.Lock()
        self._closed = False

    async def accept(self) -> None:
        """Open it; before that the request may still be refused."""
        await self._answer({"type": "http.response.start", "status": SWITCHING_PROTOCOLS, "headers": []})

    async def must_end(self) -> None:
        """Wait until the replica has no more time for it."""
        await self._drain.was_cut_off()

    async def receive(self) -> bytes | str | None:
        """The next message; None: the client has gone."""
        message: Any = await self._receive()
        if message["type"] == "websocket.disconnect":
            self._closed = True
            return None
        data: bytes | str | None = message.get("bytes")
        return data if data is not None else str(message.get("text") or "")

    async def send(self, data: bytes | str) -> None:
        """Send one message, binary or text; returns when there is room for the next one."""
        message: Any = {"type": "websocket.send"}
        message["text" if isinstance(data, str) else "bytes"] = data
        async with self._sending:
            if not self._closed:
                await self._send(message)

    async def close(self, code: int, reason: str) -> None:
        """Say goodbye, while nobody is receiving: granian would wait for the next message first.

        Args:
            code: RFC 6455 section 7.4.
            reason: Of which a close frame holds 123 bytes.
        """
        async with self._sending:
            if not self._closed:
                self._closed = True
                cut = reason.encode()[:123].decode(errors="ignore")
                message: Any = {"type": "websocket.close", "code": code, "reason": cut}
                await self._send(message)


class Upgraded(Response[Any]):
    """The answer that makes a WebSocket of a request.

    Args:
        session: Accepts the socket, speaks with the client, and closes it.
    """

    def __init__(self, session: Callable[[Socket], Awaitable[None]]) -> None:
        super().__init__(None, status_code=SWITCHING_PROTOCOLS)
        self._session = session

    def to_asgi_response(self, *_: Any, **__: Any) -> ASGIApp:  # type: ignore[override]
        """The answer itself."""
        return self._answer

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        del receive  # of the request, which is over
        receive_message, send_message, drain = scope[_SOCKET]  # type: ignore[literal-required]
        with drain.session():
            await self._session(Socket(receive_message, send_message, send, drain))


def require_upgrade(request: Request[Any, Any, Any]) -> None:
    """Refuse a request that asks for no WebSocket.

    Raises:
        UpgradeRequired: It is a plain GET.
    """
    if _SOCKET not in request.scope:
        raise UpgradeRequired


class UpgradeLayer:
    """Hands a WebSocket's opening to the application as a GET; outermost of all layers.

    Args:
        app: What is wrapped.
        drain: On the replica's way out WebSockets go on for a while.
    """

    def __init__(self, app: ASGIApp, drain: Drain) -> None:
        self._app = app
        self._drain = drain

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, or one WebSocket."""
        if scope["type"] != ScopeType.WEBSOCKET:
            await self._app(scope, receive, send)
            return
        await receive()  # that it connects
        request: Any = {**scope, "type": "http", "method": "GET", _SOCKET: (receive, send, self._drain)}

        async def nothing_more() -> Any:
            return {"type": "http.request", "body": b"", "more_body": False}

        async def answer(message: Any) -> None:
            await send(_of_websocket(message))

        await self._app(request, nothing_more, answer)


def _of_websocket(message: Any) -> Any:
    """A message of an HTTP answer as ASGI's WebSocket Denial Response extension has it, or the acceptance."""
    if message["type"] == "http.response.start" and message["status"] == SWITCHING_PROTOCOLS:
        return {"type": "websocket.accept", "subprotocol": None, "headers": message["headers"]}
    return {**message, "type": f"websocket.{message['type']}"}
