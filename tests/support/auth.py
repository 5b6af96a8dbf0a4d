"""The auth service with real PostgreSQL, NATS and AWS (moto), and the accounts that tests log in with."""

import base64
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from itertools import count
from typing import Any
from uuid import uuid4

import httpx
import msgspec
import pytest
from litestar import Litestar
from litestar.testing import AsyncTestClient

from deploy.local.aws import Keys, role_arn
from services.auth.app import create_app
from services.auth.settings import AuthSettings
from shared.database import Database, migrate
from tests.support.ground import new_secret_keys
from tests.support.servers import MotoServer, NatsServer, PostgresServer

Client = AsyncTestClient[Litestar]
_addresses = count(1)


def new_key_hash_key() -> str:
    """A value of GPUDEV_KEY_HASH_KEY."""
    return base64.b64encode(os.urandom(32)).decode()


def new_name() -> str:
    """A role session name that no other test uses."""
    return f"user-{uuid4().hex[:12]}"


def auth_settings(**changes: Any) -> AuthSettings:
    """Settings with nothing behind them."""
    settings = AuthSettings(
        database_url="postgresql://nobody@127.0.0.1:1/none",
        nats_url="nats://127.0.0.1:1",
        secret_keys=new_secret_keys(),
        allowed_roles=role_arn(),
        key_hash_key=new_key_hash_key(),
        log_level="error",
    )
    return msgspec.structs.replace(settings, **changes)


def login_body(keys: Keys) -> dict[str, str | None]:
    """Body of a log-in."""
    return {
        "aws_access_key_id": keys.access_key_id,
        "aws_secret_access_key": keys.secret_access_key,
        "aws_session_token": keys.session_token,
    }


async def log_in(client: Client, keys: Keys, *, address: str | None = None) -> httpx.Response:
    """Log in from an address of one's own, so that no other test's attempts count."""
    number = next(_addresses)
    origin = address or f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}"
    return await client.post("/v1/auth/aws-login", json=login_body(keys), headers={"X-Forwarded-For": origin})


def bearer(api_key: str) -> dict[str, str]:
    """Headers of a request with a key."""
    return {"Authorization": f"Bearer {api_key}"}


@asynccontextmanager
async def serving(settings: AuthSettings) -> AsyncIterator[Client]:
    """The service, running for the length of a block."""
    async with AsyncTestClient(create_app(settings)) as client:
        yield client


@pytest.fixture(scope="session")
def auth_dsn(postgres_server: PostgresServer) -> Iterator[str]:
    """Auth's migrated schema, shared by the tests of a session: each uses users of its own."""
    dsn = postgres_server.make_service_database("auth")
    migrate.upgrade("auth", dsn)
    yield dsn
    postgres_server.drop_database(dsn)


@pytest.fixture(scope="session")
def real_auth_settings(auth_dsn: str, nats_server: NatsServer, moto_server: MotoServer) -> AuthSettings:
    """Settings of a service on the session's servers."""
    return auth_settings(
        database_url=auth_dsn, nats_url=nats_server.url, aws_endpoint_url=moto_server.endpoint_url, replica="auth-test"
    )


@pytest.fixture
async def auth_client(real_auth_settings: AuthSettings) -> AsyncIterator[Client]:
    """A client of the running service."""
    async with serving(real_auth_settings) as client:
        yield client


@pytest.fixture
async def auth_database(auth_dsn: str) -> AsyncIterator[Database]:
    """Another connection to the service's schema."""
    database = Database(auth_dsn, pool_size=3)
    yield database
    await database.close()
