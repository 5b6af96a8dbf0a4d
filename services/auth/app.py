"""The auth service, wired."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from functools import partial

from litestar import Litestar

from services.auth.adapters.sts import Sts
from services.auth.api.administration import commands
from services.auth.api.audit import AuditController
from services.auth.api.console import ConsoleController
from services.auth.api.keys import KeysController
from services.auth.api.login import LoginController
from services.auth.api.users import UsersController
from services.auth.context import Context, LoginPolicy
from services.auth.domain.hashing import KeyHasher
from services.auth.operations.verify import verify_key
from services.auth.settings import AuthSettings
from services.auth.storage.last_used import LastUsed
from services.auth.workers.last_used import LastUsedWriter
from services.auth.workers.retention import Retention
from shared.admin import Command
from shared.contracts.auth import VERIFY_SUBJECT, Identity, VerifyRequest
from shared.messaging import RpcEndpoint
from shared.settings import read_settings
from shared.web.app import Foundation, ServiceParts, create_service_app
from shared.web.authentication import Verify
from shared.web.verification import VerifyController, answer_verify


def create_app(settings: AuthSettings | None = None) -> Litestar:
    """The application; None: settings from the environment.

    Raises:
        SettingsError: A setting is missing or wrong.
    """
    settings = read_settings(AuthSettings) if settings is None else settings
    base = Foundation.open("auth", settings)
    context = _open_context(base, settings)
    verify = _verify(context)
    writer = LastUsedWriter(context)
    return create_service_app(
        base,
        ServiceParts(
            controllers=[
                LoginController,
                ConsoleController,
                KeysController,
                UsersController,
                AuditController,
                VerifyController,
            ],
            verify=verify,
            resources={"context": context, "verify_key": verify, "internal_token": settings.internal_token or ""},
            rpc=[RpcEndpoint(VERIFY_SUBJECT, VerifyRequest, partial(answer_verify, verify))],
            loops=[writer.loop, Retention(context).loop],
            closers=[context.sts.close, writer.close],
        ),
    )


@asynccontextmanager
async def administration(settings: AuthSettings | None = None) -> AsyncIterator[Sequence[Command]]:
    """The commands of `gpudev-admin auth`; raises as `create_app` does."""
    settings = read_settings(AuthSettings) if settings is None else settings
    base = Foundation.open("auth", settings)
    context = _open_context(base, settings)
    try:
        yield commands(context)
    finally:
        await context.sts.close()
        await base.database.close()


def _open_context(base: Foundation, settings: AuthSettings) -> Context:
    return Context(
        database=base.database,
        outbox=base.relay,
        cipher=base.cipher,
        clock=partial(datetime.now, UTC),
        sts=Sts(endpoint_url=settings.aws_endpoint_url, region=settings.aws_region),
        hasher=KeyHasher(settings.hash_key()),
        last_used=LastUsed(base.database),
        policy=LoginPolicy(
            allowed_roles=settings.roles(),
            operators=settings.operator_sessions(),
            per_minute_address=settings.login_limit_per_minute_address,
            per_minute_access_key=settings.login_limit_per_minute_access_key,
        ),
        terms=settings.terms(),
    )


def _verify(context: Context) -> Verify:
    async def verify(key_hash: str) -> Identity:
        return await verify_key(context, key_hash=key_hash, now=context.clock())

    return verify
