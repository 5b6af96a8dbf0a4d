"""A user's own keys."""

from typing import Annotated

from litestar import Controller, Response, delete, get, post
from litestar.di import NamedDependency
from litestar.params import FromPath, QueryParameter

from services.auth.context import Context
from services.auth.operations.read import list_keys
from services.auth.operations.revoke import revoke_key
from services.auth.operations.rotate import rotate_key
from services.auth.schemas import (
    KeyListResponse,
    RevokeResponse,
    RotateResponse,
    key_list,
    revoked,
    rotated,
)
from shared.api_key import new_api_key, parse_key_prefix
from shared.errors import NotFound
from shared.web.authentication import AuthenticatedRequest
from shared.web.errors import error_responses
from shared.web.idempotency import idempotency_key, replayable

Limit = Annotated[int, QueryParameter(ge=1, le=500, description="Maximum number of keys")]
Offset = Annotated[int, QueryParameter(ge=0, le=1_000_000_000, description="Number of keys to skip")]


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
        self, request: AuthenticatedRequest, context: NamedDependency[Context]
    ) -> Response[RotateResponse]:
        """The new key never outlives the log-in session. The old key keeps working for 60 s."""
        outcome = await rotate_key(
            context,
            identity=request.user,
            new_key=new_api_key(),
            idempotency_key=await idempotency_key(request),
            now=context.clock(),
        )
        return replayable(rotated(outcome))

    @get("/", operation_id="list_keys", summary="List your API keys", responses=error_responses())
    async def list(
        self,
        request: AuthenticatedRequest,
        context: NamedDependency[Context],
        limit: Limit = 50,
        offset: Offset = 0,
    ) -> KeyListResponse:
        """Your keys that are still valid, newest first."""
        page = await list_keys(context, user_id=request.user.user_id, limit=limit, offset=offset, now=context.clock())
        return key_list(page, limit=limit, offset=offset, current=request.user.key_id)

    @delete(
        "/{key_prefix:str}",
        status_code=200,
        operation_id="revoke_key",
        summary="Revoke one of your API keys",
        responses=error_responses(404, 409, 422),
    )
    async def revoke(
        self, request: AuthenticatedRequest, key_prefix: FromPath[str], context: NamedDependency[Context]
    ) -> Response[RevokeResponse]:
        """Within a second the key is refused everywhere. Repeating the request gives the same answer."""
        key_id = parse_key_prefix(key_prefix)
        if key_id is None:
            raise NotFound("API key")
        outcome = await revoke_key(
            context,
            user_id=request.user.user_id,
            key_id=key_id,
            idempotency_key=await idempotency_key(request),
            now=context.clock(),
        )
        return replayable(revoked(outcome))
