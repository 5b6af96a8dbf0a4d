"""How a browser gets a log-in, and whose it is."""

import secrets
from typing import Any

from litestar import Controller, Request, Response, get, post
from litestar.di import NamedDependency
from litestar.params import JSONBody

from services.auth.api.login import limit_address
from services.auth.context import Context
from services.auth.operations.console import make_console_code, use_console_code
from services.auth.schemas import (
    ConsoleCodeResponse,
    ConsoleLoginRequest,
    ConsoleLoginResponse,
    IdentityResponse,
    LoginBody,
    console_code,
    console_login,
    identity_answer,
)
from shared.api_key import new_api_key
from shared.idempotency import check_key
from shared.web.authentication import PUBLIC, AuthenticatedRequest
from shared.web.errors import error_responses
from shared.web.idempotency import idempotency_key, replayable

_CODE_BYTES = 32


class ConsoleController(Controller):
    path = "/v1/auth"
    tags = ["Authentication"]  # noqa: RUF012 - Litestar's class attribute

    @get("/identity", operation_id="get_identity", summary="Tell whose key this is", responses=error_responses())
    async def identity(self, request: AuthenticatedRequest) -> IdentityResponse:
        """The user behind the key of this request, and whether they are an operator."""
        return identity_answer(request.user)

    @post(
        "/console-codes",
        status_code=200,
        operation_id="create_console_code",
        summary="Get a one-time code for the console",
        responses=error_responses(409, 422),
    )
    async def make(
        self, request: AuthenticatedRequest, context: NamedDependency[Context]
    ) -> Response[ConsoleCodeResponse]:
        """A code that opens the console in a browser, at `path`: it is good for 60 s, and for one log-in."""
        outcome = await make_console_code(
            context,
            identity=request.user,
            new_code=secrets.token_urlsafe(_CODE_BYTES),
            idempotency_key=await idempotency_key(request),
            now=context.clock(),
        )
        return replayable(console_code(outcome))

    @post(
        "/console-login",
        status_code=200,
        operation_id="console_login",
        summary="Exchange a one-time code for an API key",
        opt={PUBLIC: True},
        security=[{}],
        dto=LoginBody[ConsoleLoginRequest],
        return_dto=None,
        guards=[limit_address],
        responses=error_responses(403, 429, public=True, body=True),
    )
    async def use(
        self, request: Request[Any, Any, Any], data: JSONBody[ConsoleLoginRequest], context: NamedDependency[Context]
    ) -> ConsoleLoginResponse:
        """A key of its own for who has a code, in the log-in session of the key that asked for the code."""
        if "idempotency-key" in request.headers:
            check_key(request.headers["idempotency-key"])
        return console_login(
            await use_console_code(context, code=data.code, new_key=new_api_key(), now=context.clock())
        )
