"""Bodies: JSON only, of the size that their route is for, whole and in time.

Checked after the key, and as the body is read: what a handler does not read costs nothing.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress

from litestar.enums import ScopeType
from litestar.types import ASGIApp, HTTPReceiveMessage, HTTPRequestEvent, Receive, Scope, Send

from shared.errors import ErrorKind, GpuDevError, InvalidInput, Problem

SMALL_BODY_BYTES = 16 << 10
"""Of every route that does not say otherwise (`request_max_body_size`)."""
LARGE_BODY_BYTES = 1 << 20
"""Of a submit: a command and environment variables, of which JSON may make six times as much."""


_DRAINED_BYTES = 4 << 20
_DRAIN_SECONDS = 1.0


class NotJson(GpuDevError):
    """The request's Content-Type is not JSON (RFC 9110 section 15.5.16)."""

    kind = ErrorKind.NOT_JSON

    def __init__(self) -> None:
        super().__init__("The body must be JSON: send Content-Type: application/json")


class BodyTooSlow(GpuDevError):
    """The body did not arrive in time (RFC 9110 section 15.5.9)."""

    kind = ErrorKind.TIMED_OUT

    def __init__(self) -> None:
        super().__init__("The body did not arrive in time")


class RequestBody:
    """The body of a request as it is read, and what of it nobody has.

    A server closes a connection on which a part of the body is left, which resets it: whoever is still sending then
    loses the answer, a refusal say, and reads a 502 of the ingress instead.
    """

    def __init__(self, receive: Receive, headers: Mapping[bytes, bytes]) -> None:
        self._receive = receive
        self._left = _has_body(headers)
        self._read = False
        """Whether somebody reads now."""

    async def receive(self) -> HTTPReceiveMessage:
        """The next message."""
        self._read = True
        try:
            message: HTTPReceiveMessage = await self._receive()  # type: ignore[assignment]
        finally:
            self._read = False
        if message["type"] != "http.request" or not message.get("more_body", False):
            self._left = False
        return message

    async def drain(self, status: int) -> None:
        """Read what is left before an answer of this status, and forget it: a little only, and only for a moment."""
        if not self._left or status == BodyTooSlow.kind.status_code:
            return  # there is nothing, or it was waited for already
        room = _DRAINED_BYTES
        with suppress(TimeoutError):
            async with asyncio.timeout(_DRAIN_SECONDS):
                while self._left and room > 0 and not self._read:
                    message = await self.receive()
                    room -= len(message["body"]) if message["type"] == "http.request" else 0


class BodyMiddleware:
    """Refuses a body of another media type on handlers that read one, and one that does not come whole and in time.

    Args:
        app: The next layer.
        seconds: For the whole body, from when it is first read.
    """

    def __init__(self, app: ASGIApp, seconds: float) -> None:
        self._app = app
        self._seconds = seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] == ScopeType.HTTP and scope["method"] in {"POST", "PUT", "PATCH", "DELETE"}:
            headers = dict(scope["headers"])
            has_body = _has_body(headers)
            if has_body and scope["route_handler"].parsed_data_field is not None and not is_json(headers):
                raise NotJson
            if has_body:
                receive = _bounded(receive, self._seconds)
        await self._app(scope, receive, send)


async def whole_body(receive: Receive, seconds: float) -> bytes:
    """The body of a request, of which the server sees that it is no longer than is said.

    Raises:
        BodyTooSlow: It did not come whole in this time.
        InvalidInput: It ends before its end.
    """
    next_message = _bounded(receive, seconds)
    parts: list[bytes] = []
    more = True
    while more:
        message = await next_message()
        parts.append(message.get("body", b""))
        more = message.get("more_body", False)
    return b"".join(parts)


def _bounded(receive: Receive, seconds: float) -> Callable[[], Awaitable[HTTPRequestEvent]]:
    deadline: float | None = None
    whole = False

    async def next_message() -> HTTPRequestEvent:
        nonlocal deadline, whole
        if whole:
            return await receive()  # type: ignore[return-value]
        if deadline is None:
            deadline = asyncio.get_running_loop().time() + seconds
        try:
            async with asyncio.timeout_at(deadline):
                message = await receive()
        except TimeoutError:
            raise BodyTooSlow from None
        if message["type"] == "http.disconnect":
            raise InvalidInput([Problem("json_invalid", ("body",), "The body is incomplete")])
        whole = not message.get("more_body", False)
        return message  # type: ignore[return-value]

    return next_message


def _has_body(headers: Mapping[bytes, bytes]) -> bool:
    return headers.get(b"content-length", b"0") != b"0" or b"transfer-encoding" in headers


def is_json(headers: Mapping[bytes, bytes]) -> bool:
    """Whether the body is said to be JSON."""
    media_type = headers.get(b"content-type", b"").partition(b";")[0].strip().lower()
    return media_type == b"application/json" or (
        media_type.startswith(b"application/") and media_type.endswith(b"+json")
    )
