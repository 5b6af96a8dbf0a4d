"""The reads that clients make most, answered before the framework: it would take more time than they do.

The route of each is there as well, documents it, and answers whatever is out of the ordinary: a key that is not
remembered, parameters that are wrong or in an unusual form, a preference to wait. Both end in the same function, so
they answer alike.
"""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import msgspec
import structlog
from litestar.enums import HttpMethod, ScopeType
from litestar.types import ASGIApp, HTTPScope, Receive, Scope, Send

from shared.contracts.auth import Identity
from shared.errors import GpuDevError, InvalidInput, Unauthenticated
from shared.web.authentication import IdentityCache, bearer_key
from shared.web.conditional import Encoded, conditional
from shared.web.errors import ErrorBody, error_headers
from shared.web.response import RawAnswer, json_answer, raw_headers

log = structlog.get_logger(__name__)

ArgumentsT = TypeVar("ArgumentsT")
_UNUSUAL = frozenset({b"prefer"})


@dataclass(frozen=True, kw_only=True)
class FastRead:
    template: str
    """Its route, as metrics call it."""
    match: Callable[[str, str], Any]
    """From a path and a query to what `read` is given; None: not this route, or not in its usual form."""
    read: Callable[[Identity, Any], Awaitable[Encoded]]


class FastReads:
    """A layer around the application.

    Args:
        app: Answers everything else.
        identities: Only a key that is remembered there is taken here.
        reads: In the order in which they are tried.
    """

    def __init__(self, app: ASGIApp, identities: IdentityCache, reads: Sequence[FastRead]) -> None:
        self._app = app
        self._identities = identities
        self._reads = reads

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        answer = await self._answer(scope) if scope["type"] == ScopeType.HTTP else None
        await (answer or self._app)(scope, receive, send)

    async def _answer(self, scope: HTTPScope) -> RawAnswer | None:
        if scope["method"] != HttpMethod.GET:
            return None
        path, query = scope["path"], scope["query_string"].decode("latin-1")
        for read in self._reads:
            arguments = read.match(path, query)
            if arguments is not None:
                return await self._answer_to(read, arguments, scope)
        return None

    async def _answer_to(self, read: FastRead, arguments: Any, scope: HTTPScope) -> RawAnswer | None:
        identity = self._identity(scope)
        if identity is None:
            return None
        try:
            found = await read.read(identity, arguments)
        except InvalidInput:
            return None
        except GpuDevError as error:
            answer = _error_answer(error)
        except Exception as error:  # noqa: BLE001 - if it comes again, the framework answers and logs it
            log.warning("fast_read_failed", route=read.template, error=type(error).__name__)
            return None
        else:
            answer = conditional(found, _if_none_match(scope))
        scope["path_template"] = read.template
        return answer

    def _identity(self, scope: HTTPScope) -> Identity | None:
        if any(name in _UNUSUAL for name, _ in scope["headers"]):
            return None
        try:
            return self._identities.remembered(bearer_key(scope["headers"]))
        except Unauthenticated:
            return None


def _if_none_match(scope: HTTPScope) -> str | None:
    given = [value for name, value in scope["headers"] if name == b"if-none-match"]
    return b", ".join(given).decode("latin-1") if given else None


def _error_answer(error: GpuDevError) -> RawAnswer:
    body = msgspec.json.encode(ErrorBody(error.text))
    return json_answer(error.kind.status_code, body, raw_headers(error_headers(error)))
