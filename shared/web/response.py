"""JSON answers without the parts of a response that ours never have (cookies, background tasks, other encoders).

Litestar's own class spends a sixth of a read on them.
"""

from typing import Any

import msgspec
from litestar import Request, Response
from litestar.types import ASGIApp, Receive, Scope, Send

_ENCODER = msgspec.json.Encoder()


class StructResponse(Response[Any]):
    """The application's default: what a handler returns, as JSON; anything unusual is Litestar's."""

    def to_asgi_response(  # type: ignore[override]
        self,
        app: Any,
        request: Request[Any, Any, Any],
        *,
        headers: dict[str, str] | None = None,
        cookies: Any = None,
        **options: Any,
    ) -> ASGIApp:
        """The encoded answer."""
        plain = isinstance(self.content, msgspec.Struct) and not (cookies or self.cookies or self.background or options)
        if not plain:
            answer: ASGIApp = super().to_asgi_response(app, request, headers=headers, cookies=cookies, **options)
            return answer
        return _EncodedStruct(
            _ENCODER.encode(self.content), self.status_code or 200, {**(headers or {}), **self.headers}
        )


class _EncodedStruct:
    def __init__(self, body: bytes, status: int, headers: dict[str, Any]) -> None:
        self._body = body
        self._status = status
        self._headers = [
            (b"content-type", b"application/json"),
            (b"content-length", str(len(body)).encode()),
            *((name.lower().encode("latin-1"), str(value).encode("latin-1")) for name, value in headers.items()),
        ]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        del scope, receive
        await send({"type": "http.response.start", "status": self._status, "headers": self._headers})
        await send({"type": "http.response.body", "body": self._body, "more_body": False})
