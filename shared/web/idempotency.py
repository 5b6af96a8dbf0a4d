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
    sent = given.encode("latin-1")
    return key_of(sent, request.user.user_id, request.method, path=request.url.path, body=await request.body())


def key_of(given: bytes | None, user_id: int, method: str, *, path: str, body: bytes) -> IdempotencyKey | None:
    """The key of a user's request; None: its header is not given.

    Raises:
        InvalidInput: The header is not usable.
    """
    if given is None:
        return None
    path = path.rstrip("/")  # the same request with a slash at its end
    digest = hashlib.sha256(f"{method} {path}\n".encode())
    digest.update(body)
    return IdempotencyKey(user_id, check_key(given.decode("latin-1")), digest.digest())


def replayable(outcome: Outcome[AnswerT], headers: Mapping[str, str] | None = None) -> Response[AnswerT]:
    """The answer, marked when it is a replay."""
    return Response(outcome.answer, status_code=200, headers={**replay_marks(outcome), **(headers or {})})


def replay_marks(outcome: Outcome[AnswerT]) -> dict[str, str]:
    """Headers of the answer that tell a replay."""
    return {"Idempotent-Replayed": "true"} if outcome.replayed else {}
