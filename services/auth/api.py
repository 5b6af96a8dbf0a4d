"""Auth's public endpoints."""

from datetime import UTC, datetime
from typing import Annotated, Any

from litestar import Controller, Request, Response, delete, get, post
from litestar.connection import ASGIConnection
from litestar.di import NamedDependency
from litestar.handlers import BaseRouteHandler
from litestar.params import FromPath, JSONBody, QueryParameter

from services.auth import operations
from services.auth.operations import Auth
from services.auth.schemas import (
    AwsLoginRequest,
    AwsLoginResponse,
    KeyListResponse,
    LoginBody,
    RevokeResponse,
    RotateResponse,
    key_list,
    logged_in,
    revoked,
    rotated,
)
from shared.api_key import new_api_key, parse_key_prefix
from shared.contracts.auth import Identity
from shared.errors import NotFound
from shared.idempotency import check_key
from shared.web.address import client_address
from shared.web.authentication import PUBLIC
from shared.web.errors import error_responses
from shared.web.idempotency import idempotency_key, replayable

Limit = Annotated[int, QueryParameter(ge=1, le=500, description="Maximum number of keys")]
Offset = Annotated[int, QueryParameter(ge=0, le=1_000_000_000, description="Number of keys to skip")]


async def count_address(connection: ASGIConnection[Any, Any, Any, Any], _: BaseRouteHandler) -> None:
    """Counts a log-in for its address before its body is read, so that what is refused costs next to nothing.

    Raises:
        RateLimited: The address has had its share.
    """
    auth: Auth = connection.app.state.auth
    await operations.count_address(auth, address=client_address(connection), now=datetime.now(UTC))


class LoginController(Controller):
    path = "/v1/auth"
    tags = ["Authentication"]  # noqa: RUF012 - Litestar's class attribute

    @post(
        "/aws-login",
        status_code=200,
        operation_id="aws_login",
        summary="Exchange AWS credentials for an API key",
        opt={PUBLIC: True},
        security=[{}],
        dto=LoginBody[AwsLoginRequest],
        return_dto=None,
        guards=[count_address],
        responses=error_responses(401, 403, 429, public=True, body=True),
    )
    async def aws_login(
        self, request: Request[Any, Any, Any], data: JSONBody[AwsLoginRequest], auth: NamedDependency[Auth]
    ) -> AwsLoginResponse:
        """Send credentials of a session of an allowed role. They are used for one call to AWS STS and not stored."""
        if "idempotency-key" in request.headers:
            check_key(request.headers["idempotency-key"])
        person, issued = await operations.log_in(
            auth,
            credentials=data.credentials(),
            address=client_address(request),
            new_key=new_api_key(),
            now=datetime.now(UTC),
        )
        return logged_in(person, issued, auth.terms)


class KeysController(Controller):
    path = "/v1/keys"
    tags = ["API Key Management"]  # noqa: RUF012 - Litestar's class attribute

    @post(
        "/rotate",
        status_code=200,
        operation_id="rotate_key",
        summary="Generate a new API key with a fresh TTL",
        responses=error_responses(409, 422),
    )
    async def rotate(
        self, request: Request[Identity, Any, Any], auth: NamedDependency[Auth]
    ) -> Response[RotateResponse]:
        """The new key never outlives the log-in session. The old key keeps working for 60 s."""
        outcome = await operations.rotate_key(
            auth,
            identity=request.user,
            new_key=new_api_key(),
            idempotency_key=await idempotency_key(request),
            now=datetime.now(UTC),
        )
        return replayable(rotated(outcome))

    @get("/", operation_id="list_keys", summary="List your API keys", responses=error_responses())
    async def list_keys(
        self,
        request: Request[Identity, Any, Any],
        auth: NamedDependency[Auth],
        limit: Limit = 50,
        offset: Offset = 0,
    ) -> KeyListResponse:
        """Your keys that are still valid, newest first."""
        page = await operations.list_keys(
            auth, user_id=request.user.user_id, limit=limit, offset=offset, now=datetime.now(UTC)
        )
        return key_list(page, limit=limit, offset=offset, current=request.user.key_id)

    @delete(
        "/{key_prefix:str}",
        status_code=200,
        operation_id="revoke_key",
        summary="Revoke one of your API keys",
        responses=error_responses(404, 409, 422),
    )
    async def revoke(
        self, request: Request[Identity, Any, Any], key_prefix: FromPath[str], auth: NamedDependency[Auth]
    ) -> Response[RevokeResponse]:
        """The key is refused everywhere within a second. Repeating the request gives the same answer."""
        key_id = parse_key_prefix(key_prefix)
        if key_id is None:
            raise NotFound("API key")
        outcome = await operations.revoke_key(
            auth,
            user_id=request.user.user_id,
            key_id=key_id,
            idempotency_key=await idempotency_key(request),
            now=datetime.now(UTC),
        )
        return replayable(revoked(outcome))
