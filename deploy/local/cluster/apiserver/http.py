"""HTTP/1.1 over TLS on asyncio streams, with h11 for the protocol.

No ASGI server: exec and node ports need the bare connection, and a watch has to end the moment its client goes.
"""

import asyncio
import contextlib
import logging
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, unquote

import h11
import msgspec

from deploy.local.cluster.machinery import errors

logger = logging.getLogger(__name__)

BODY_LIMIT_BYTES = 3 * 1024 * 1024
_READ_BYTES = 65536
_IDLE_SECONDS = 300


@dataclass(frozen=True, slots=True)
class Request:
    """One request, its body read."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes
    parameters: tuple[tuple[str, str], ...] = ()
    """The query with every repetition of a name."""

    def json(self) -> object:
        """The decoded body; raises BadRequest."""
        try:
            return msgspec.json.decode(self.body)
        except msgspec.DecodeError as error:
            raise errors.bad_request(f"the object provided is unrecognized: couldn't decode JSON: {error}") from error

    @property
    def content_type(self) -> str:
        """The media type without its parameters; empty when none was sent."""
        return self.headers.get("content-type", "").partition(";")[0].strip().lower()


@dataclass(frozen=True, slots=True)
class Upgraded:
    """A connection that has left HTTP."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    early: bytes
    """What the client sent before it knew that it may."""


@dataclass(frozen=True, slots=True)
class Response:
    """An answer; `stream` takes the place of `body` when it never is whole.

    With `upgrade` the answer is 101 and the connection goes on as that callable wants.
    """

    status: int = 200
    body: bytes = b""
    content_type: str = "application/json"
    headers: dict[str, str] = field(default_factory=dict)
    stream: AsyncIterator[bytes] | None = None
    upgrade: Callable[[Upgraded], Awaitable[None]] | None = None


Handler = Callable[[Request], Awaitable[Response]]


class HttpServer:
    """Serves one handler on 127.0.0.1."""

    def __init__(self, handler: Handler, tls: ssl.SSLContext) -> None:
        self._handler, self._tls = handler, tls
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()

    async def start(self, port: int) -> None:
        """Listens; raises OSError when the port is taken."""
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", port, ssl=self._tls, backlog=1024)

    async def stop(self) -> None:
        """Closes the listener and every connection at once."""
        if self._server is not None:
            self._server.close()
        for task in self._connections:
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is not None:
            self._connections.add(task)
            task.add_done_callback(self._connections.discard)
        try:
            await _Connection(reader, writer, self._handler).serve()
        except (OSError, TimeoutError, h11.ProtocolError, asyncio.IncompleteReadError):
            logger.debug("connection ended", exc_info=True)
        except asyncio.CancelledError:
            logger.debug("connection closed at shutdown")
        finally:
            writer.close()
            with contextlib.suppress(OSError, asyncio.CancelledError):
                await asyncio.wait_for(writer.wait_closed(), 1)


class _Connection:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, handler: Handler) -> None:
        self._reader, self._writer, self._handler = reader, writer, handler
        self._http = h11.Connection(h11.SERVER)

    async def serve(self) -> None:
        """Answers requests until the client or a protocol error ends the connection."""
        while (request := await self._next_request()) is not None:
            if isinstance(request, Response):
                await self._answer(request)
                return
            response = await self._handler(request)
            if response.upgrade is not None:
                await self._upgrade(response, response.upgrade)
                return
            await self._answer(response)
            if self._http.our_state is not h11.DONE or self._http.their_state is not h11.DONE:
                return
            self._http.start_next_cycle()

    async def _next_request(self) -> Request | Response | None:
        head: h11.Request | None = None
        body = bytearray()
        while True:
            event = await self._next_event()
            if isinstance(event, h11.Request):
                head = event
            elif isinstance(event, h11.Data):
                body += event.data
                if len(body) > BODY_LIMIT_BYTES:
                    return error_response(errors.too_large(BODY_LIMIT_BYTES))
            elif isinstance(event, h11.EndOfMessage) and head is not None:
                return _request(head, bytes(body))
            else:
                return None

    async def _next_event(self) -> h11.Event | type[h11.PAUSED]:
        while True:
            event = self._http.next_event()
            if self._http.they_are_waiting_for_100_continue:
                await self._send(h11.InformationalResponse(status_code=100, headers=[]))
            if event is not h11.NEED_DATA:
                return event  # type: ignore[return-value]  # NEED_DATA is excluded
            async with asyncio.timeout(_IDLE_SECONDS):
                self._http.receive_data(await self._reader.read(_READ_BYTES))

    async def _answer(self, response: Response) -> None:
        headers = [("Content-Type", response.content_type), ("Cache-Control", "no-cache, private")]
        headers += list(response.headers.items())
        if response.stream is None:
            headers.append(("Content-Length", str(len(response.body))))
            await self._send(
                h11.Response(status_code=response.status, headers=headers),
                h11.Data(data=response.body),
                h11.EndOfMessage(),
            )
        else:
            await self._send(h11.Response(status_code=response.status, headers=headers))
            await self._stream(response.stream)

    async def _upgrade(self, response: Response, go_on: Callable[[Upgraded], Awaitable[None]]) -> None:
        headers = list(response.headers.items())
        await self._send(h11.InformationalResponse(status_code=101, headers=headers, reason=b"Switching Protocols"))
        early, _ = self._http.trailing_data
        await go_on(Upgraded(self._reader, self._writer, early))

    async def _stream(self, chunks: AsyncIterator[bytes]) -> None:
        early = asyncio.ensure_future(self._reader.read(1))
        pump = asyncio.ensure_future(self._pump(chunks))
        try:
            await asyncio.wait({early, pump}, return_when=asyncio.FIRST_COMPLETED)
            # nothing read is the client's end of the connection; a byte is the beginning of its next request
            if pump.done() or (early.done() and early.result()):
                await pump
        finally:
            for task in (early, pump):
                task.cancel()
            await asyncio.gather(early, pump, return_exceptions=True)
        if early.done() and not early.cancelled() and early.result():
            self._http.receive_data(early.result())

    async def _pump(self, chunks: AsyncIterator[bytes]) -> None:
        async with contextlib.aclosing(chunks):  # type: ignore[type-var]  # every stream here is a generator
            async for chunk in chunks:
                await self._send(h11.Data(data=chunk))
        await self._send(h11.EndOfMessage())

    async def _send(self, *events: h11.Event) -> None:
        data = b"".join(self._http.send(event) or b"" for event in events)
        self._writer.write(data)
        await self._writer.drain()


def error_response(error: errors.StatusError) -> Response:
    """The Status of an error as an answer."""
    headers = {"Retry-After": "1"} if error.code in {429, 504} else {}
    return Response(error.code, msgspec.json.encode(error.status), headers=headers)


def _request(head: h11.Request, body: bytes) -> Request:
    raw_path, _, raw_query = head.target.decode("latin-1").partition("?")
    headers: dict[str, str] = {}
    for name, value in head.headers:
        key, text = name.decode().lower(), value.decode("latin-1")
        headers[key] = f"{headers[key]},{text}" if key in headers else text
    parameters = tuple(parse_qsl(raw_query, keep_blank_values=True))
    return Request(head.method.decode(), unquote(raw_path), dict(parameters), headers, body, parameters)
