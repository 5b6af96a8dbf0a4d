"""The outermost layer: request ids, bodies that are not JSON, control characters, and the log line of each request."""

import asyncio
import time
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from http import HTTPStatus
from typing import Any
from urllib.parse import unquote_to_bytes

import structlog
from litestar.enums import HttpMethod, ScopeType
from litestar.types import ASGIApp, Receive, Scope, Send
from prometheus_client import Histogram

from shared.clock import Stopwatch
from shared.errors import GpuDevError, InvalidInput, Problem
from shared.request_context import begin_request
from shared.tracing import Kind, Span, span
from shared.web.body import RequestBody
from shared.web.drain import Drain
from shared.web.errors import error_answer

log = structlog.get_logger(__name__)

_seconds = Histogram(
    "gpudev_http_request_seconds",
    "Time to answer, by route",
    ["method", "route", "status"],
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
)

_MAX_QUERY_BYTES = 8 << 10
_SERVER_ERROR = 500
"""And above, RFC 9110 section 15.6."""
_METHODS: frozenset[str] = frozenset(HttpMethod)
_UNTRACED = ("/livez", "/readyz", "/health")
_CONTROL_BYTES = frozenset(range(0x20)) | {0x7F}


class RequestLayer:
    """Wraps the whole application, unknown paths included.

    Args:
        app: What is wrapped.
        drain: On the replica's way out each answer is the last one of its connection, so that no request is on its way
            on one that closes.
        stopwatch: Tells how long a request took.
    """

    def __init__(self, app: ASGIApp, drain: Drain, *, stopwatch: Stopwatch = time.perf_counter) -> None:
        self._app = app
        self._stopwatch = stopwatch
        self._drain = drain
        # resolving the labels of a metric costs more than observing it
        self._observers: dict[tuple[str, str, int], Any] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != ScopeType.HTTP:
            await self._app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        head = scope["method"] == HttpMethod.HEAD
        if head:
            # the answer of a GET without its body (RFC 9110 section 9.3.2), whatever the route
            scope = {**scope, "method": HttpMethod.GET}
        answered = asyncio.Event() if head else None
        request_id = begin_request(headers.get(b"x-request-id", b"").decode("latin-1"))
        structlog.contextvars.bind_contextvars(request_id=request_id)
        started = self._stopwatch()
        status = 500
        body = RequestBody(receive, headers)

        async def send_with_id(message: Any) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                await body.drain(status)
                last = self._drain.begun and status != HTTPStatus.SWITCHING_PROTOCOLS
                message["headers"] = _with_our_headers(message.get("headers", ()), request_id, last=last)
                await send(message)
                if answered is not None:
                    answered.set()
                    await send({"type": "http.response.body", "body": b"", "more_body": False})
            elif not head:
                await send(message)

        async def receive_until_answered() -> Any:
            # to a stream the client of a HEAD has gone as soon as it has the headers
            await answered.wait()  # type: ignore[union-attr]
            return {"type": "http.disconnect"}

        refusal = _refusal(scope)
        with _traced(scope, headers) as traced:
            app = self._app if refusal is None else error_answer(refusal)
            await app(scope, receive_until_answered if head else body.receive, send_with_id)
            _tell(traced, scope, status, request_id)
        self._observe(scope, status, self._stopwatch() - started)

    def _observe(self, scope: Scope, status: int, seconds: float) -> None:
        # the route's template, so that no id becomes a label; none where no route was found. A method may be any word:
        # each label stays for as long as the process
        method = str(scope["method"])  # type: ignore[typeddict-item]
        key = (method if method in _METHODS else "other", str(scope.get("path_template", "none")), status)
        observer = self._observers.get(key)
        if observer is None:
            observer = self._observers[key] = _seconds.labels(*key)
        observer.observe(seconds)
        if status >= _SERVER_ERROR:
            path, rounded = scope["path"], round(seconds, 4)
            log.warning("request_failed", method=key[0], path=path, status=status, seconds=rounded)


def _traced(scope: Scope, headers: Mapping[bytes, bytes]) -> AbstractContextManager[Span | None]:
    """A request's span, which goes on with the client's trace if it has one. Probes are no part of any."""
    if scope["path"].startswith(_UNTRACED):
        return nullcontext()
    parent = headers.get(b"traceparent", b"").decode("latin-1") or None
    return span("request", parent=parent, kind=Kind.SERVER, root=True)


def _tell(traced: Span | None, scope: Scope, status: int, request_id: str) -> None:
    if traced is None:
        return
    method, route = str(scope["method"]), str(scope.get("path_template", "none"))  # type: ignore[typeddict-item]
    traced.rename(f"{method} {route}")
    traced.note(
        {
            "http.request.method": method,
            "http.route": route,
            "http.response.status_code": status,
            "gpudev.request_id": request_id,
        }
    )
    if status >= _SERVER_ERROR:
        traced.fail(str(status))


def _with_our_headers(
    headers: Iterable[tuple[bytes, bytes]], request_id: str, *, last: bool
) -> list[tuple[bytes, bytes]]:
    """The request's id, and that no cache keeps what is somebody's own, unless the answer says otherwise.

    Args:
        headers: Of the answer.
        request_id: Of the request.
        last: The connection ends with it.
    """
    ours = [*headers, (b"x-request-id", request_id.encode())]
    if not any(name == b"cache-control" for name, _ in ours):
        ours.append((b"cache-control", b"no-store"))
    if last:
        ours.append((b"connection", b"close"))
    return ours


def _refusal(scope: Scope) -> GpuDevError | None:
    if not _CONTROL_BYTES.isdisjoint(scope["path"].encode("utf-8", "surrogatepass")):
        return InvalidInput([Problem("value_error", ("path",), "Control characters are not allowed")])
    query = scope["query_string"]
    if len(query) > _MAX_QUERY_BYTES:
        return InvalidInput([Problem("too_long", ("query",), "The query is longer than 8 KB")])
    if b"%" in query and not _CONTROL_BYTES.isdisjoint(unquote_to_bytes(query)):
        return InvalidInput([Problem("value_error", ("query",), "Control characters are not allowed")])
    return None
