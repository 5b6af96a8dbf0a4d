"""Conditional reads: answers that carry an ETag, and 304 for who has them already (RFC 9110 section 13)."""

import hashlib
import re
from typing import Any

import msgspec
from litestar import Request, Response
from litestar.openapi.datastructures import ResponseSpec
from litestar.types import ASGIApp

from shared.web.errors import error_responses
from shared.web.response import RawAnswer, json_answer, raw_headers

_TAGS = re.compile(r'(?:W/)?("[^"]*")')
_ENCODER = msgspec.json.Encoder()
_DIGEST_BYTES = 12
NOT_MODIFIED = 304


class Encoded(msgspec.Struct, frozen=True, gc=False):
    """The body of an answer, and what it is known by."""

    body: bytes
    tag: str
    """The value of ETag."""


def encoded(answer: msgspec.Struct) -> Encoded:
    """An answer whose tag is as strong as its bytes: another body never has the same."""
    body = _ENCODER.encode(answer)
    return Encoded(body, f'"{digest(body)}"')


def digest(*parts: bytes) -> str:
    """What parts are known by, together and in this order."""
    return hashlib.blake2b(b"".join(parts), digest_size=_DIGEST_BYTES).hexdigest()


def is_known(if_none_match: str | None, tag: str) -> bool:
    """Whether the client has this answer already (RFC 9110 section 13.1.2, weak comparison)."""
    if not if_none_match:
        return False
    return if_none_match.strip() == "*" or tag.removeprefix("W/") in _TAGS.findall(if_none_match)


def conditional(answer: Encoded, if_none_match: str | None) -> RawAnswer:
    """The answer; without its body when the client has it."""
    headers = ((b"etag", answer.tag.encode()),)
    if is_known(if_none_match, answer.tag):
        return RawAnswer(NOT_MODIFIED, headers, b"")
    return json_answer(200, answer.body, headers)


def conditional_responses(*codes: int) -> dict[int, ResponseSpec]:
    """OpenAPI responses of a conditional read, beside its own; `codes`: errors of the handler's own."""
    same = ResponseSpec(None, description="The client has this answer: If-None-Match names its ETag")
    return {NOT_MODIFIED: same, **error_responses(*codes)}


def if_none_match(request: Request[Any, Any, Any]) -> str | None:
    """The tags of what the client has; None when it does not say."""
    return ", ".join(request.headers.getall("if-none-match", [])) or None


class ConditionalResponse(Response[Any]):
    """What a handler of a conditional read returns.

    Args:
        request: Whose answer it is.
        answer: Its body and tag.
        headers: More of them.
    """

    def __init__(self, request: Request[Any, Any, Any], answer: Encoded, headers: dict[str, str] | None = None) -> None:
        super().__init__(None, headers=headers or {})
        self._answer = conditional(answer, if_none_match(request))

    def to_asgi_response(self, *_: Any, **__: Any) -> ASGIApp:  # type: ignore[override]
        """The answer as it is sent."""
        return self._answer.with_headers(raw_headers(self.headers))
