"""Users, for operators."""

from typing import Annotated

from litestar import Controller, get
from litestar.di import NamedDependency
from litestar.params import FromQuery, QueryParameter

from services.auth.context import Context
from services.auth.operations.read import list_users
from services.auth.schemas import UserListResponse, user_list
from shared.web.authentication import AuthenticatedRequest
from shared.web.errors import error_responses

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
