"""The requests that clients make most, answered before the framework: it would take more time than they do.

The route of each is there as well, documents it, and answers whatever is out of the ordinary: a key that is not
remembered, parameters or a body that are wrong or in an unusual form, a preference to wait. Both end in the same
function, so they answer alike.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import structlog
from litestar.enums import HttpMethod, ScopeType
from litestar.types import ASGIApp, HTTPScope, Receive, Scope, Send

from shared.audit import begin_act
from shared.contracts.auth import Identity
from shared.errors import GpuDevError, InvalidInput, Unauthenticated
from shared.idempotency import IdempotencyKey, Outcome
from shared.web.authentication import IdentityCache, act_of, bearer_key
from shared.web.body import is_json, whole_body
from shared.web.conditional import Encoded, conditional
from shared.web.errors import error_answer, unexpected_answer
from shared.web.idempotency import key_of, replay_marks
from shared.web.response import RawAnswer, raw_headers, struct_answer

log = structlog.get_logger(__name__)

_PREFERENCE = b"prefer"


@dataclass(frozen=True, kw_only=True)
class FastRead:
    """A GET."""

    template: str
    """Its route, as metrics call it."""
    match: Callable[[str, str], Any]
    """From a path and a query to what `read` is given; None: not this route, or not in its usual form."""
    read: Callable[[Identity, Any], Awaitable[Encoded]]


@dataclass(frozen=True, kw_only=True)
class FastWrite:
    """A POST whose path has no parameters, with a body, and an idempotency key if the client wants."""

    template: str
    """Its route: path, and name in metrics."""
    operation_id: str
    """Of its route, as the audit calls what it does."""
    most_bytes: int
    """Of the body; what is larger is not read here."""
    decode: Callable[[bytes], Any]
    """From the body to what `write` is given; raises InvalidInput."""
    write: Callable[[Identity, Any, IdempotencyKey | None], Awaitable[Outcome[Any]]]
    """Once it is called the request is answered here, whatever comes of it: another try might have a second effect."""


FastRoute = FastRead | FastWrite


class FastRoutes:
    """A layer around the application.

    Args:
        app: Answers everything else.
        identities: Only a key that is remembered there is taken here.
        routes: Reads in the order in which they are tried.
        body_seconds: For a whole body.
        proxies: As many stand before the service.
    """

    def __init__(
        self,
        app: ASGIApp,
        identities: IdentityCache,
        routes: Sequence[FastRoute],
        *,
        body_seconds: float,
        proxies: int,
    ) -> None:
        self._app = app
        self._identities = identities
        self._reads = [route for route in routes if isinstance(route, FastRead)]
        self._writes = {route.template: route for route in routes if isinstance(route, FastWrite)}
        self._body_seconds = body_seconds
        self._proxies = proxies

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        answer: RawAnswer | None = None
        if scope["type"] == ScopeType.HTTP:
            if scope["method"] == HttpMethod.GET:
                answer = await self._answer_read(scope)
            elif scope["method"] == HttpMethod.POST:
                answer, receive = await self._answer_write(scope, receive)
        await (answer or self._app)(scope, receive, send)

    async def _answer_read(self, scope: HTTPScope) -> RawAnswer | None:
        path, query = scope["path"], scope["query_string"].decode("latin-1")
        for route in self._reads:
            arguments = route.match(path, query)
            if arguments is not None:
                return await self._read(route, arguments, scope)
        return None

    async def _read(self, route: FastRead, arguments: Any, scope: HTTPScope) -> RawAnswer | None:
        identity = self._identity(scope)
        if identity is None:
            return None
        try:
            found = await route.read(identity, arguments)
        except InvalidInput:
            return None
        except GpuDevError as error:
            answer = error_answer(error)
        except Exception as error:  # noqa: BLE001 - if it comes again, the framework answers and logs it
            log.warning("fast_read_failed", route=route.template, error=type(error).__name__)
            return None
        else:
            answer = conditional(found, _if_none_match(scope))
        scope["path_template"] = route.template
        return answer

    async def _answer_write(self, scope: HTTPScope, receive: Receive) -> tuple[RawAnswer | None, Receive]:
        """The answer, or None and from where the framework gets the body."""
        route = self._writes.get(scope["path"])
        if route is None or scope["query_string"]:
            return None, receive
        headers = _headers(scope)
        identity = self._identity(scope)
        if identity is None or headers is None or not _is_usual(headers, route.most_bytes):
            return None, receive
        try:
            body = await whole_body(receive, self._body_seconds)
        except GpuDevError as error:
            scope["path_template"] = route.template
            return error_answer(error), receive
        try:
            data = route.decode(body)
            key = key_of(
                headers.get(b"idempotency-key"), identity.user_id, scope["method"], path=scope["path"], body=body
            )
        except InvalidInput:
            return None, _again(body, receive)
        scope["path_template"] = route.template
        begin_act(act_of(route.operation_id, scope, identity, self._proxies))
        return await _write(route, identity, data, key), receive

    def _identity(self, scope: HTTPScope) -> Identity | None:
        if any(name == _PREFERENCE for name, _ in scope["headers"]):
            return None
        try:
            return self._identities.remembered(bearer_key(scope["headers"]))
        except Unauthenticated:
            return None


async def _write(route: FastWrite, identity: Identity, data: Any, key: IdempotencyKey | None) -> RawAnswer:
    try:
        outcome = await route.write(identity, data, key)
        return struct_answer(200, outcome.answer, raw_headers(replay_marks(outcome)))
    except GpuDevError as error:
        return error_answer(error)
    except Exception as error:  # noqa: BLE001 - it is logged
        return unexpected_answer(error, route.template)


def _headers(scope: HTTPScope) -> dict[bytes, bytes] | None:
    """By name; None: there are several of one name."""
    given = list(scope["headers"])
    headers = dict(given)
    return headers if len(headers) == len(given) else None


def _is_usual(headers: Mapping[bytes, bytes], most_bytes: int) -> bool:
    """Whether a body of JSON comes, of a length that is told and not too large."""
    length = headers.get(b"content-length", b"")
    return (
        b"transfer-encoding" not in headers and length.isdigit() and 0 < int(length) <= most_bytes and is_json(headers)
    )


def _again(body: bytes, receive: Receive) -> Receive:
    """A body that was read, for another reader; then what comes after it."""
    given = False

    async def next_message() -> Any:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return next_message


def _if_none_match(scope: HTTPScope) -> str | None:
    given = [value for name, value in scope["headers"] if name == b"if-none-match"]
    return b", ".join(given).decode("latin-1") if given else None
