"""Users, for operators."""

from typing import Annotated

from litestar import Controller, Response, get, post
from litestar.di import NamedDependency
from litestar.params import FromPath, FromQuery, QueryParameter

from services.auth.context import Context
from services.auth.operations.disable import disable_user, enable_user, user_for_operator
from services.auth.operations.read import list_users
from services.auth.schemas import UserActionResponse, UserListResponse, user_disabled, user_enabled, user_list
from shared.web.authentication import AuthenticatedRequest
from shared.web.errors import error_responses
from shared.web.idempotency import idempotency_key, replayable

Limit = FromQuery[Annotated[int, QueryParameter(ge=1, le=500, description="Maximum number of users")]]
Offset = FromQuery[Annotated[int, QueryParameter(ge=0, le=1_000_000_000, description="Number of users to skip")]]


class UsersController(Controller):
    path = "/v1/auth/users"
    tags = ["Authentication"]  # noqa: RUF012 - Litestar's class attribute

    @get("/", operation_id="list_users", summary="List users, for operators", responses=error_responses(403))
    async def list(
        self,
        request: AuthenticatedRequest,
        context: NamedDependency[Context],
        limit: Limit = 50,
        offset: Offset = 0,
    ) -> UserListResponse:
        """Everybody who has ever logged in: who did last comes first."""
        users, total = await list_users(context, asker=request.user, limit=limit, offset=offset)
        return user_list(users, total, limit=limit, offset=offset)

    @post(
        "/{user_id:str}/disable",
        status_code=200,
        operation_id="disable_user",
        summary="Disable a user, for operators",
        responses=error_responses(403, 404, 409, 422),
    )
    async def disable(
        self, request: AuthenticatedRequest, user_id: FromPath[str], context: NamedDependency[Context]
    ) -> Response[UserActionResponse]:
        """All keys of the user are revoked, log-in is refused, and all jobs of the user are cancelled.

        It takes effect within a second or two; jobs have the grace that is configured. Disks and snapshots are kept.
        Repeating it changes nothing. Your own user is refused with 409.
        """
        outcome = await disable_user(
            context,
            user_id=user_for_operator(request.user, user_id),
            now=context.clock(),
            key=await idempotency_key(request),
        )
        return replayable(user_disabled(outcome))

    @post(
        "/{user_id:str}/enable",
        status_code=200,
        operation_id="enable_user",
        summary="Enable a disabled user, for operators",
        responses=error_responses(403, 404, 409, 422),
    )
    async def enable(
        self, request: AuthenticatedRequest, user_id: FromPath[str], context: NamedDependency[Context]
    ) -> Response[UserActionResponse]:
        """The user may log in again; the old keys stay revoked. Repeating it changes nothing."""
        outcome = await enable_user(
            context,
            user_id=user_for_operator(request.user, user_id),
            now=context.clock(),
            key=await idempotency_key(request),
        )
        return replayable(user_enabled(outcome))
