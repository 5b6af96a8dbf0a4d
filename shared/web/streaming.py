"""Text that is sent as it comes."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress
from typing import Any

from litestar import MediaType, Response
from litestar.openapi.datastructures import ResponseSpec
from litestar.types import ASGIApp, Receive, Scope, Send

from shared.background import cancel_all
from shared.web.key_holds import KeyEnded, KeyHold
from shared.web.server_sent import reason_event

FIRST_SECONDS = 0.5
QUIET_SECONDS = 15.0
"""Below the idle time-outs of what stands between: CloudFront's 30 s, others' 60 s."""
_LAST_SECONDS = 1.0
_SLOW_SECONDS = 30.0
"""A client of events that takes none of a piece for so long is cut off."""
_HEADERS = (
    # users' own text, on the API's origin: no browser may take it for a page
    (b"x-content-type-options", b"nosniff"),
    (b"cache-control", b"no-store"),
    # read by nginx and its kin, which else collect an answer before they pass it on
    (b"x-accel-buffering", b"no"),
)
TEXT_RESPONSE = ResponseSpec(
    data_container=str, description="The text, sent as it comes", media_type=MediaType.TEXT, generate_examples=False
)
"""Of a handler that answers with a TextStream, for its OpenAPI."""
EVENT_RESPONSE = ResponseSpec(
    data_container=str,
    description="Server-sent events, as they come",
    media_type="text/event-stream",
    generate_examples=False,
)
"""Of a handler that answers with an EventStream, for its OpenAPI."""


class TextStream(Response[Any]):
    """An answer whose text comes piece by piece, no faster than the client takes it.

    It ends, with a line that says why, when the key that asked for it does. One that waits for news ends without a word
    when its replica stops: the client sees that what it follows is not over, and asks again.

    Args:
        pieces: Closed at the end, and as soon as the client has gone. An error in it breaks the connection, so that the
            client sees that the text is not whole; before the first text it is an answer of its own.
        hold: Of the key.
        kept_alive: It may be silent for long, so its head is sent at once, and then something every 15 s: an empty
            line, or a space where a line has no end yet. The server sends no head without a first byte.
    """

    content_type = b"text/plain; charset=utf-8"

    def __init__(self, pieces: AsyncGenerator[bytes, None], hold: KeyHold, *, kept_alive: bool) -> None:
        super().__init__(None, status_code=200)
        self._pieces = pieces
        self._hold = hold
        self._kept_alive = kept_alive
        self._begun = False
        self._at = b"\n"
        """Last byte that was sent."""

    def to_asgi_response(self, *_: Any, **__: Any) -> ASGIApp:  # type: ignore[override]
        """The answer itself."""
        return self._answer

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        del scope
        gone = asyncio.create_task(_disconnected(receive))
        ended = asyncio.create_task(self._hold.ended())
        sending = asyncio.create_task(self._send(send))
        released = asyncio.create_task(self._released())
        try:
            await asyncio.wait([sending, gone, ended, released], return_when=asyncio.FIRST_COMPLETED)
            if sending.done():
                sending.result()
            elif ended.done():
                await cancel_all([sending])
                await self._end(send, self._reason(ended.result()))
            elif released.done():
                await cancel_all([sending])
                await self._end(send, b"")
        finally:
            await cancel_all([sending, gone, ended, released])
            await self._pieces.aclose()

    async def _released(self) -> None:
        """Text that is there already is sent to its end: cut off, it would pass for the whole."""
        if self._kept_alive:
            await self._hold.released()
        else:
            await asyncio.Event().wait()

    async def _send(self, send: Send) -> None:
        async with aclosing(self._pieces):
            piece = asyncio.create_task(_next(self._pieces))
            try:
                while True:
                    await asyncio.wait([piece], timeout=self._patience())
                    if not piece.done():
                        await self._put(send, b"\n" if self._at == b"\n" else b" ")
                    elif (text := piece.result()) is None:
                        break
                    else:
                        piece = asyncio.create_task(_next(self._pieces))
                        await self._put(send, text)
            finally:
                await cancel_all([piece])
        await self._finish(send)

    def _patience(self) -> float | None:
        if not self._kept_alive:
            return None
        return QUIET_SECONDS if self._begun else FIRST_SECONDS

    async def _put(self, send: Send, text: bytes) -> None:
        if not text:
            return
        await self._begin(send)
        self._at = text[-1:]
        await send({"type": "http.response.body", "body": text, "more_body": True})

    async def _begin(self, send: Send) -> None:
        if not self._begun:
            self._begun = True
            headers = [(b"content-type", self.content_type), *_HEADERS]
            await send({"type": "http.response.start", "status": 200, "headers": headers})

    async def _finish(self, send: Send) -> None:
        await self._begin(send)
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    def _reason(self, error: KeyEnded) -> bytes:
        text = f"[gpudev: this answer ends here: {error.why}]\n".encode()
        return text if self._at == b"\n" else b"\n" + text

    async def _end(self, send: Send, text: bytes) -> None:
        with suppress(TimeoutError):  # a client that takes nothing is not waited for
            async with asyncio.timeout(_LAST_SECONDS):
                await self._put(send, text)
                await self._finish(send)


class EventStream(TextStream):
    """An answer of server-sent events (https://html.spec.whatwg.org/multipage/server-sent-events.html).

    It ends as a TextStream does, with an event `end` in place of the line. A client that takes nothing for 30 s is cut
    off, without an end: it asks again, with the id of the last event that it has.

    Args:
        pieces: Whole events; they begin at once, and are never silent for long.
        hold: Of the key.
    """

    content_type = b"text/event-stream; charset=utf-8"

    def __init__(self, pieces: AsyncGenerator[bytes, None], hold: KeyHold) -> None:
        super().__init__(pieces, hold, kept_alive=True)

    def _patience(self) -> None:
        return None  # the pieces see to it themselves, with their own signs of life

    def _reason(self, error: KeyEnded) -> bytes:
        return reason_event("end", error.why)

    async def _send(self, send: Send) -> None:
        with suppress(_NotTaken):
            await super()._send(send)

    async def _put(self, send: Send, text: bytes) -> None:
        try:
            async with asyncio.timeout(_SLOW_SECONDS) as limit:
                await super()._put(send, text)
        except TimeoutError:
            if limit.expired():
                raise _NotTaken from None
            raise


class _NotTaken(Exception):
    """The client takes nothing."""


async def _next(pieces: AsyncGenerator[bytes, None]) -> bytes | None:
    """None at the end: a task cannot raise StopAsyncIteration."""
    return await anext(pieces, None)


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
