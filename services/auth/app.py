"""The auth service, wired."""

from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial

from litestar import Litestar

from services.auth import operations
from services.auth.api import KeysController, LoginController
from services.auth.domain.hashing import KeyHasher
from services.auth.last_used import LastUsed
from services.auth.operations import Auth, LoginLimits
from services.auth.settings import AuthSettings
from services.auth.sts import Sts
from shared.background import Loop
from shared.contracts.auth import VERIFY_SUBJECT, Identity, VerifyRequest
from shared.errors import Unavailable
from shared.messaging import RpcEndpoint
from shared.settings import read_settings
from shared.web.app import Foundation, ServiceParts, create_service_app
from shared.web.authentication import Verify
from shared.web.verification import VerifyController, answer_verify

_FLUSH_SECONDS = 3.0
_PURGE_SECONDS = 60.0


def create_app(settings: AuthSettings | None = None) -> Litestar:
    """The application; None: settings from the environment.

    Raises:
        SettingsError: A setting is missing or wrong.
    """
    settings = read_settings(AuthSettings) if settings is None else settings
    base = Foundation.open("auth", settings)
    auth = _open_auth(base, settings)
    verify = _verify(auth)
    return create_service_app(
        base,
        ServiceParts(
            controllers=[LoginController, KeysController, VerifyController],
            verify=verify,
            resources={"auth": auth, "verify_key": verify, "internal_token": settings.internal_token or ""},
            rpc=[RpcEndpoint(VERIFY_SUBJECT, VerifyRequest, partial(answer_verify, verify))],
            loops=[
                Loop("last_used", auth.last_used.flush, period_seconds=_FLUSH_SECONDS),
                Loop("ended_keys", _purge(auth), period_seconds=_PURGE_SECONDS),
            ],
            closers=[auth.sts.close, _flush_at_the_end(auth.last_used)],
        ),
    )


def _open_auth(base: Foundation, settings: AuthSettings) -> Auth:
    return Auth(
        database=base.database,
        relay=base.relay,
        cipher=base.cipher,
        sts=Sts(endpoint_url=settings.aws_endpoint_url, region=settings.aws_region),
        hasher=KeyHasher(settings.hash_key()),
        allowed_roles=settings.roles(),
        operators=settings.operator_sessions(),
        terms=settings.terms(),
        limits=LoginLimits(
            per_minute_address=settings.login_limit_per_minute_address,
            per_minute_access_key=settings.login_limit_per_minute_access_key,
        ),
        last_used=LastUsed(base.database),
    )


def _verify(auth: Auth) -> Verify:
    async def verify(key_hash: str) -> Identity:
        return await operations.verify_key(auth, key_hash=key_hash, now=datetime.now(UTC))

    return verify


def _purge(auth: Auth) -> Callable[[], Awaitable[bool]]:
    async def purge() -> bool:
        return await operations.purge_ended(auth, now=datetime.now(UTC))

    return purge


def _flush_at_the_end(last_used: LastUsed) -> Callable[[], Awaitable[None]]:
    async def flush() -> None:
        with suppress(Unavailable):
            await last_used.flush()

    return flush
