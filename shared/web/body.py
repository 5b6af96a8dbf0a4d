"""Bodies: JSON only, of the size that their route is for, whole and in time.

Checked after the key, and as the body is read: what a handler does not read costs nothing.
"""

import asyncio

from litestar.enums import ScopeType
from litestar.types import ASGIApp, HTTPReceiveMessage, Receive, Scope, Send

from shared.errors import ErrorKind, GpuDevError, InvalidInput, Problem

SMALL_BODY_BYTES = 16 << 10
"""Of every route that does not say otherwise (`request_max_body_size`)."""
LARGE_BODY_BYTES = 1 << 20
"""Of a submit: a command and environment variables, of which JSON may make six times as much."""


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
            has_body = headers.get(b"content-length", b"0") != b"0" or b"transfer-encoding" in headers
            if has_body and scope["route_handler"].parsed_data_field is not None and not _is_json(headers):
                raise NotJson
            if has_body:
                receive = _bounded(receive, self._seconds)
        await self._app(scope, receive, send)


def _bounded(receive: Receive, seconds: float) -> Receive:
    deadline: float | None = None
    whole = False

    async def next_message() -> HTTPReceiveMessage:
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


def _is_json(headers: dict[bytes, bytes]) -> bool:
    media_type = headers.get(b"content-type", b"").partition(b";")[0].strip().lower()
    return media_type == b"application/json" or (
        media_type.startswith(b"application/") and media_type.endswith(b"+json")
    )
