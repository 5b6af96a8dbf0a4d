"""Text that is sent as it comes."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

import anyio
from litestar import MediaType, Response
from litestar.openapi.datastructures import ResponseSpec
from litestar.types import ASGIApp, Receive, Scope, Send

_HEADERS = (
    (b"content-type", b"text/plain; charset=utf-8"),
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


class TextStream(Response[Any]):
    """An answer whose text comes piece by piece, no faster than the client takes it.

    Args:
        pieces: Closed at the end, and as soon as the client has gone. An error in it breaks the connection, so that the
            client sees that the text is not whole.
    """

    def __init__(self, pieces: AsyncGenerator[bytes, None]) -> None:
        super().__init__(None, status_code=200)
        self._pieces = pieces

    def to_asgi_response(self, *_: Any, **__: Any) -> ASGIApp:  # type: ignore[override]
        """The answer itself."""
        return self._answer

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        del scope
        async with aclosing(self._pieces), anyio.create_task_group() as group:

            async def listen() -> None:
                while (await receive())["type"] != "http.disconnect":
                    pass
                group.cancel_scope.cancel()

            group.start_soon(listen)
            await self._send(send)
            group.cancel_scope.cancel()

    async def _send(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": list(_HEADERS)})
        async for piece in self._pieces:
            if piece:
                await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})
