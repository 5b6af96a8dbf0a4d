"""The auth service with real PostgreSQL, NATS and AWS (moto), and the accounts that tests log in with."""

import base64
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from itertools import count
from typing import Any
from uuid import uuid4

import httpx
import msgspec
import pytest
import sqlalchemy as sa
from litestar import Litestar
from litestar.testing import AsyncTestClient

from deploy.local.aws import ACCOUNT, DEMO_ROLE, Keys, role_arn
from services.auth.adapters.sts import Sts
from services.auth.app import create_app
from services.auth.context import Context, LoginPolicy
from services.auth.domain.hashing import KeyHasher
from services.auth.domain.roles import Person
from services.auth.settings import AuthSettings
from services.auth.storage.last_used import LastUsed
from shared.database import Database, Row, Statement, migrate
from shared.database.tables import outbox
from shared.encryption import Cipher
from tests.support.harness import empty, eventually, new_secret_keys
from tests.support.servers import MotoServer, NatsServer, PostgresServer

Client = AsyncTestClient[Litestar]
_addresses = count(1)
_EVENTS = Statement(
    sa.select(outbox).where(outbox.c.entity_id == sa.bindparam("user_id")).order_by(outbox.c.entity_version)
)


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


async def log_in(client: Client | httpx.AsyncClient, keys: Keys, *, address: str | None = None) -> httpx.Response:
    """Log in from an address of one's own, so that no other test's attempts count."""
    number = next(_addresses)
    origin = address or f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}"
    return await client.post("/v1/auth/aws-login", json=login_body(keys), headers={"X-Forwarded-For": origin})


async def logged_in(client: Client | httpx.AsyncClient, keys: Keys, *, address: str | None = None) -> dict[str, Any]:
    """What somebody is told who logs in; they come again while AWS does not answer in time."""

    async def told() -> Any:
        answer = await log_in(client, keys, address=address)
        assert answer.status_code in {200, 503}, answer.text
        return answer.json() if answer.status_code == 200 else None

    answer: dict[str, Any] = await eventually(told, "logged in")
    return answer


def bearer(api_key: str) -> dict[str, str]:
    """Headers of a request with a key."""
    return {"Authorization": f"Bearer {api_key}"}


@asynccontextmanager
async def serving(settings: AuthSettings) -> AsyncIterator[Client]:
    """The service, running for the length of a block."""
    async with AsyncTestClient(create_app(settings)) as client:
        yield client


class Relay:
    """Nothing is published; counts how often it was woken."""

    def __init__(self) -> None:
        self.woken = 0

    def wake(self) -> None:
        """Count."""
        self.woken += 1


def new_person(name: str | None = None, **changes: str) -> Person:
    """Somebody whom AWS has vouched for."""
    name = name or new_name()
    arn = f"arn:aws:sts::{ACCOUNT}:assumed-role/{DEMO_ROLE}/{name}"
    person = Person(account=ACCOUNT, role_id="AROAEXAMPLEEXAMPLE123", session_name=name, arn=arn)
    return msgspec.structs.replace(person, **changes)


def open_auth(database: Database, **changes: Any) -> Context:
    """What operations work with, without AWS and without NATS."""
    settings = auth_settings(aws_endpoint_url="http://127.0.0.1:1")
    context = Context(
        database=database,
        outbox=Relay(),
        cipher=Cipher(settings.secret_keys),
        clock=partial(datetime.now, UTC),
        sts=Sts(endpoint_url=settings.aws_endpoint_url, region=settings.aws_region),
        hasher=KeyHasher(settings.hash_key()),
        last_used=LastUsed(database),
        policy=LoginPolicy(
            allowed_roles=settings.roles(),
            operators=settings.operator_sessions(),
            per_minute_address=3,
            per_minute_access_key=2,
        ),
        terms=settings.terms(),
    )
    return replace(context, **changes)


async def events_of(database: Database, user_id: int) -> list[Row]:
    """The user's events in the outbox, in the order of their versions."""
    return await database.fetch_all(_EVENTS, user_id=str(user_id))


@pytest.fixture(scope="session")
def auth_schema(postgres_server: PostgresServer) -> Iterator[str]:
    """Auth's migrated schema."""
    dsn = postgres_server.make_service_database("auth")
    migrate.upgrade("auth", dsn)
    yield dsn
    postgres_server.drop_database(dsn)


@pytest.fixture
async def auth_dsn(auth_schema: str) -> str:
    """The schema, empty."""
    await empty(auth_schema)
    return auth_schema


@pytest.fixture
def real_auth_settings(auth_dsn: str, nats_server: NatsServer, moto_server: MotoServer) -> AuthSettings:
    """Settings of a service on the session's servers."""
    return auth_settings(
        database_url=auth_dsn,
        nats_url=nats_server.service_url("auth"),
        aws_endpoint_url=moto_server.endpoint_url,
        replica="auth-test",
        login_limit_per_minute_address=10_000,
        login_limit_per_minute_access_key=10_000,
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


@pytest.fixture
async def auth_operations(auth_database: Database) -> AsyncIterator[Context]:
    """What operations work with, on the real schema; times are the test's own."""
    auth = open_auth(auth_database)
    yield auth
    await auth.sts.close()
