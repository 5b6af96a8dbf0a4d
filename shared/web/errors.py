"""Errors as answers: one shape, one table from kind to status, nothing internal told."""

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec
import structlog
from litestar import Request, Response
from litestar.exceptions import (
    HTTPException,
    MethodNotAllowedException,
    NotFoundException,
    SerializationException,
    ValidationException,
)
from litestar.handlers import HTTPRouteHandler
from litestar.openapi.datastructures import ResponseSpec
from litestar.types import ExceptionHandlersMap
from msgspec import UNSET

from shared.errors import ErrorKind, GpuDevError, InvalidInput, Problem
from shared.request_context import current_request_id
from shared.web.response import RawAnswer, raw_headers, struct_answer
from shared.web.validation import parameter_problems, with_input

log = structlog.get_logger(__name__)


class ErrorBody(msgspec.Struct, frozen=True, omit_defaults=True):
    detail: str
    """What is wrong, for a person."""
    request_id: str | None = None
    """Only with 500: names the log lines."""


class ProblemsBody(msgspec.Struct, frozen=True):
    detail: list[Problem]
    """Every problem that was found."""


_DESCRIPTIONS = {
    400: "Invalid input; every problem is listed",
    401: "The API key is missing, malformed, unknown, expired or revoked",
    403: "The key or identity is valid but may not do this",
    404: "Not found, or it belongs to another user",
    409: "The current state does not allow this; the text says why",
    410: "It is marked for deletion",
    408: "The body did not arrive in time",
    413: "The body is larger than the route accepts: 16 KB, or 1 MB for a submit",
    415: "The body is not JSON",
    422: "The idempotency key was used with another request",
    426: "The route speaks WebSocket alone",
    429: "Too many requests; Retry-After says when to try again",
    500: "An internal error; the request id identifies it in the log",
    503: "A dependency is down; Retry-After says when to try again",
}
_BODY_CODES = (408, 413, 415)
_DEFAULT_RETRY_SECONDS = {ErrorKind.UNAVAILABLE: 5, ErrorKind.RATE_LIMITED: 60}


def error_responses(*codes: int, public: bool = False, body: bool = False) -> dict[int, ResponseSpec]:
    """OpenAPI responses of a handler's errors: those given, and those that every handler of its sort can answer.

    400 is one of these: a path or a query with control characters is refused everywhere.

    Args:
        codes: Statuses of the handler's own.
        public: No key is asked for.
        body: It reads a JSON body.
    """
    every = {400, 500, 503, *codes} | (set() if public else {401, 403, 429}) | (set(_BODY_CODES) if body else set())
    return _responses(every)


def bad_request() -> dict[int, ResponseSpec]:
    """OpenAPI response of the pages that depend on nothing: only a path or query with control characters is refused."""
    return _responses({400})


def _responses(codes: Iterable[int]) -> dict[int, ResponseSpec]:
    return {
        code: ResponseSpec(
            data_container=ProblemsBody if code == ErrorKind.INVALID.value else ErrorBody,
            description=_DESCRIPTIONS[code],
            generate_examples=False,
        )
        for code in sorted(codes)
    }


def _answer(status: int, body: msgspec.Struct, headers: dict[str, str] | None = None) -> Response[Any]:
    return Response(body, status_code=status, headers=headers or {}, media_type="application/json")


def on_project_error(request: Request[Any, Any, Any], error: GpuDevError) -> Response[Any]:
    """An error that says itself what callers may know."""
    status = error.kind.status_code
    if isinstance(error, InvalidInput):
        return _answer(status, ProblemsBody(_with_parameters(request, error.told())))
    return _answer(status, ErrorBody(error.text), error_headers(error))


def error_headers(error: GpuDevError) -> dict[str, str]:
    """What the answer to an error says beside its text; what is down is logged."""
    headers = {}
    if error.kind is ErrorKind.UNAUTHENTICATED:
        headers["WWW-Authenticate"] = "Bearer"
    if error.kind is ErrorKind.UPGRADE_REQUIRED:
        headers["Upgrade"] = "websocket"
    retry = error.retry_after_seconds or _DEFAULT_RETRY_SECONDS.get(error.kind)
    if retry is not None:
        headers["Retry-After"] = str(retry)
    if error.kind is ErrorKind.UNAVAILABLE:
        log.warning("dependency_unavailable", error=type(error).__name__, context=error.context)
    return headers


def error_answer(error: GpuDevError) -> RawAnswer:
    """The answer to an error that is about no parameter of the request."""
    body = ProblemsBody(error.told()) if isinstance(error, InvalidInput) else ErrorBody(error.text)
    return struct_answer(error.kind.status_code, body, raw_headers(error_headers(error)))


def on_validation_error(request: Request[Any, Any, Any], error: ValidationException) -> Response[Any]:
    """Parameters that Litestar refused."""
    return _answer(400, ProblemsBody(_with_parameters(request, parameter_problems(error))))


def _with_parameters(request: Request[Any, Any, Any], problems: Sequence[Problem]) -> list[Problem]:
    """The problems, those of the path and the query with the value that was given; headers may hold keys."""
    given = {"path": request.path_params, "query": request.query_params}
    return [
        with_input(problem, given.get(str(problem.loc[0]), {}).get(str(problem.loc[-1]), UNSET))
        if problem.input is UNSET
        else problem
        for problem in problems
    ]


def on_unreadable_body(_: Request[Any, Any, Any], __: SerializationException) -> Response[Any]:
    """A body that is no JSON at all."""
    return _answer(400, ProblemsBody([Problem("json_invalid", ("body",), "The body is not valid JSON")]))


def on_http_error(request: Request[Any, Any, Any], error: HTTPException) -> Response[Any]:
    """What Litestar itself answers: 404 of unknown paths, 405, 413."""
    text = {404: "Path not found", 405: "Method not allowed", 413: _too_large(request)}.get(
        error.status_code, error.detail or "Request failed"
    )
    if isinstance(error, MethodNotAllowedException | NotFoundException) or error.status_code < ErrorKind.INTERNAL.value:
        return _answer(error.status_code, ErrorBody(text), dict(error.headers or {}))
    return on_unexpected(request, error)


def _too_large(request: Request[Any, Any, Any]) -> str:
    handler = request.scope.get("route_handler")
    limit = handler.resolve_request_max_body_size() if isinstance(handler, HTTPRouteHandler) else None
    return f"The body is larger than {limit >> 10} KB" if limit else "The body is too large"


def on_unexpected(request: Request[Any, Any, Any], error: Exception) -> Response[Any]:
    """A fault of ours: the client learns its id, the log has the rest."""
    return _answer(500, _unexpected(error, request.url.path))


def unexpected_answer(error: Exception, path: str) -> RawAnswer:
    """The same, as it is sent."""
    return struct_answer(500, _unexpected(error, path))


def _unexpected(error: Exception, path: str) -> ErrorBody:
    log.error("unexpected_error", path=path, error=type(error).__name__, exc_info=error)
    return ErrorBody("Internal Server Error", current_request_id())


EXCEPTION_HANDLERS: ExceptionHandlersMap = {
    GpuDevError: on_project_error,
    ValidationException: on_validation_error,
    SerializationException: on_unreadable_body,
    HTTPException: on_http_error,
    Exception: on_unexpected,
}
