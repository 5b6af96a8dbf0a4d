"""The Idempotency-Key header, and the answer of an idempotent operation."""

import hashlib
from collections.abc import Mapping
from typing import TypeVar

import msgspec
from litestar import Response

from shared.idempotency import IdempotencyKey, Outcome, check_key
from shared.web.authentication import AuthenticatedRequest

AnswerT = TypeVar("AnswerT", bound=msgspec.Struct)


async def idempotency_key(request: AuthenticatedRequest) -> IdempotencyKey | None:
    """The request's key; None when it has none.

    Raises:
        InvalidInput: The header is not usable.
    """
    given = request.headers.get("idempotency-key")
    if given is None:
        return None
    path = request.url.path.rstrip("/")  # the same request with a slash at its end
    digest = hashlib.sha256(f"{request.method} {path}\n".encode())
    digest.update(await request.body())
    return IdempotencyKey(request.user.user_id, check_key(given), digest.digest())


def replayable(outcome: Outcome[AnswerT], headers: Mapping[str, str] | None = None) -> Response[AnswerT]:
    """The answer, marked when it is a replay."""
    marks = {"Idempotent-Replayed": "true"} if outcome.replayed else {}
    return Response(outcome.answer, status_code=200, headers={**marks, **(headers or {})})
