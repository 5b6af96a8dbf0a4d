"""Logging in with AWS credentials."""

from typing import Any

from litestar import Controller, Request, get, post
from litestar.connection import ASGIConnection
from litestar.di import NamedDependency
from litestar.handlers import BaseRouteHandler
from litestar.params import JSONBody

from services.auth.context import Context
from services.auth.domain.roles import AwsCredentials, SignedQuestion
from services.auth.operations.log_in import count_address, log_in
from services.auth.schemas import (
    AwsLoginRequest,
    AwsLoginResponse,
    AwsSignedLoginRequest,
    AwsSigning,
    LoginBody,
    logged_in,
)
from shared.api_key import new_api_key
from shared.idempotency import check_key
from shared.web.address import client_address
from shared.web.authentication import PUBLIC
from shared.web.errors import error_responses


async def limit_address(connection: ASGIConnection[Any, Any, Any, Any], _: BaseRouteHandler) -> None:
    """Counts a log-in for its address before its body is read, so that what is refused costs next to nothing.

    Raises:
        RateLimited: The address has had its share.
    """
    context: Context = connection.app.state.context
    await count_address(context, address=client_address(connection), now=context.clock())


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
        guards=[limit_address],
        responses=error_responses(401, 403, 429, public=True, body=True),
    )
    async def aws_login(
        self, request: Request[Any, Any, Any], data: JSONBody[AwsLoginRequest], context: NamedDependency[Context]
    ) -> AwsLoginResponse:
        """Send the credentials of a session of an allowed role. They are used for one call to AWS STS, never stored."""
        return await self._log_in(request, data.credentials(), context)

    @get(
        "/aws-signing",
        operation_id="get_aws_signing",
        summary="Tell what to sign for a log-in",
        opt={PUBLIC: True},
        security=[{}],
        responses=error_responses(public=True),
    )
    async def aws_signing(self, context: NamedDependency[Context]) -> AwsSigning:
        """What `POST /v1/auth/aws-signed-login` wants signed."""
        return AwsSigning(host=context.sts.host, region=context.sts.region, time=context.clock())

    @post(
        "/aws-signed-login",
        status_code=200,
        operation_id="aws_signed_login",
        summary="Exchange a signature of AWS credentials for an API key",
        opt={PUBLIC: True},
        security=[{}],
        dto=LoginBody[AwsSignedLoginRequest],
        return_dto=None,
        guards=[limit_address],
        responses=error_responses(401, 403, 429, public=True, body=True),
    )
    async def aws_signed_login(
        self, request: Request[Any, Any, Any], data: JSONBody[AwsSignedLoginRequest], context: NamedDependency[Context]
    ) -> AwsLoginResponse:
        """As `aws-login`, without sending the secret key: the signature lets AWS be asked this, and nothing else."""
        return await self._log_in(request, data.question(), context)

    async def _log_in(
        self, request: Request[Any, Any, Any], credentials: AwsCredentials | SignedQuestion, context: Context
    ) -> AwsLoginResponse:
        if "idempotency-key" in request.headers:
            check_key(request.headers["idempotency-key"])
        person, issued = await log_in(
            context,
            credentials=credentials,
            address=client_address(request),
            new_key=new_api_key(),
            now=context.clock(),
        )
        return logged_in(person, issued, context.terms)
