"""Answers: their times in one form, and JSON without the parts of a response that ours never have.

Those are cookies, background tasks and other encoders; Litestar's own class spends a sixth of a read on them.
"""

from collections.abc import Mapping
from datetime import datetime
from functools import cache
from typing import Any, get_args

import msgspec
from litestar import Request, Response
from litestar.types import ASGIApp, Receive, Scope, Send

_ENCODER = msgspec.json.Encoder()


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """Base of what routes answer: its times are whole seconds, as in the contract, and never later than the truth."""

    def __post_init__(self) -> None:
        for name in _moments(type(self)):
            moment = getattr(self, name)
            if moment is not None and moment.microsecond:
                msgspec.structs.force_setattr(self, name, moment.replace(microsecond=0))


@cache
def _moments(answer: type[Answer]) -> tuple[str, ...]:
    return tuple(
        field.name for field in msgspec.structs.fields(answer) if datetime in {field.type, *get_args(field.type)}
    )


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
        more = raw_headers({**(headers or {}), **self.headers})
        return struct_answer(self.status_code or 200, self.content, more)


class RawAnswer(msgspec.Struct, frozen=True):
    """An answer as it is sent."""

    status: int
    headers: tuple[tuple[bytes, bytes], ...]
    body: bytes

    def with_headers(self, more: tuple[tuple[bytes, bytes], ...]) -> "RawAnswer":
        """The same with more headers."""
        return RawAnswer(self.status, (*self.headers, *more), self.body)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it."""
        del scope, receive
        await send({"type": "http.response.start", "status": self.status, "headers": self.headers})
        await send({"type": "http.response.body", "body": self.body, "more_body": False})


def struct_answer(status: int, content: msgspec.Struct, headers: tuple[tuple[bytes, bytes], ...] = ()) -> RawAnswer:
    """An answer whose body is a struct as JSON."""
    return json_answer(status, _ENCODER.encode(content), headers)


def json_answer(status: int, body: bytes, headers: tuple[tuple[bytes, bytes], ...] = ()) -> RawAnswer:
    """An answer whose body is JSON."""
    described = ((b"content-type", b"application/json"), (b"content-length", str(len(body)).encode()))
    return RawAnswer(status, (*described, *headers), body)


def raw_headers(headers: Mapping[str, Any]) -> tuple[tuple[bytes, bytes], ...]:
    """Headers as they are sent."""
    return tuple((name.lower().encode("latin-1"), str(value).encode("latin-1")) for name, value in headers.items())
