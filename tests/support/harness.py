"""A harness for shared code: a schema with nothing but outbox, inbox and idempotency keys, and its moving parts."""

import asyncio
import base64
import logging
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, ClassVar
from uuid import UUID

import asyncpg
import nats
import pytest
import structlog
from nats.aio.client import Client
from nats.js.errors import NotFoundError
from sqlalchemy.ext.asyncio import create_async_engine

from shared.background import cancel_all
from shared.clock import Clock, utc_now
from shared.contracts.events import STREAM, CloudEvent, EventData
from shared.database import Database, Transaction
from shared.database.tables import shared_metadata
from shared.messaging import (
    AnySubscription,
    BatchSubscription,
    Broker,
    Consumer,
    Draft,
    Relay,
    Subscription,
    record_event,
)
from shared.messaging.outbox import oldest_unpublished
from shared.messaging.stream import StreamKeeper
from tests.support.servers import NatsServer, PostgresServer

_OTHERS = (
    "SELECT application_name, query FROM pg_stat_activity "
    "WHERE datname = current_database() AND usename = current_user AND pid <> pg_backend_pid()"
)
END_SESSIONS = """
    SELECT pg_terminate_backend(pid) FROM pg_stat_activity
    WHERE application_name LIKE '%-session' AND datname = current_database() AND usename = current_user
"""
"""PostgreSQL ends the connections that hold locks, as when it dies."""
_EMPTY = """
    DO $$
    DECLARE one regclass; filled boolean; found text[];
    BEGIN
        FOR one IN SELECT oid FROM pg_class WHERE relkind = 'r' AND relnamespace = current_schema()::regnamespace
            AND relname <> 'alembic_version'
        LOOP
            EXECUTE format('SELECT EXISTS (SELECT FROM %s)', one) INTO filled;
            IF filled THEN found := found || one::text; END IF;
        END LOOP;
        IF found IS NOT NULL THEN EXECUTE format('TRUNCATE %s CASCADE', array_to_string(found, ', ')); END IF;
    END $$
"""
"""A table takes a file of each of its indexes anew: those that are empty are left alone."""


def new_secret_keys() -> str:
    """A value of GPUDEV_SECRET_KEYS."""
    return base64.b64encode(os.urandom(32)).decode()


async def eventually(condition: Callable[[], Awaitable[Any] | Any], what: str, *, seconds: float = 60.0) -> Any:
    """Wait until `condition` is truthy and return what it gave; fail after `seconds`."""
    deadline = asyncio.get_running_loop().time() + seconds
    while True:
        result = condition()
        if asyncio.iscoroutine(result):
            result = await result
        if result:
            return result
        assert asyncio.get_running_loop().time() < deadline, f"not within {seconds} s: {what}"
        await asyncio.sleep(0.02)


@asynccontextmanager
async def connected(dsn: str) -> AsyncIterator[Any]:
    """A connection to PostgreSQL; whatever it holds ends with the block, also where the test fails in it."""
    connection = await asyncpg.connect(dsn)
    try:
        yield connection
    finally:
        connection.terminate()


async def empty(dsn: str) -> None:
    """Leave of a service's schema what its migrations make.

    Fails when somebody else works on it: what they write would be found by the next test.
    """
    left: list[Any] = []
    async with connected(dsn) as connection:

        async def alone() -> bool:
            left[:] = await connection.fetch(_OTHERS)
            return not left

        try:
            await eventually(alone, "nobody of an earlier test is connected")
        except AssertionError as error:
            raise AssertionError(f"{error}; there are {[dict(one) for one in left]}") from error
        await connection.execute(_EMPTY)


@asynccontextmanager
async def nats_client(url: str, **options: Any) -> AsyncIterator[Client]:
    """A connection to NATS, closed with the block."""
    client = await nats.connect(url, **options)
    try:
        yield client
    finally:
        await client.close()


async def flushed(client: Client) -> None:
    """Return when the server has read all that was sent on the connection, such as a subscription."""
    # nats-py sends a ping ahead of what is still to be written: only the second one is behind it
    await client.flush()
    await client.flush()


@pytest.fixture(autouse=True)
def logs_as_they_were() -> Iterator[None]:
    """What a service of this test has said of logging is over with it, as is the standard error that it names."""
    settings, root = structlog.get_config(), logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    structlog.configure(**settings)
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.fixture
def logged(capsys: pytest.CaptureFixture[str]) -> Iterator[Callable[[], str]]:
    """Tells what the services of this test have logged since it was asked last: JSON lines.

    A logger stays as its first use found the settings, so those of this test are new ones.
    """
    with pytest.MonkeyPatch.context() as patch:
        for name, module in list(sys.modules.items()):
            if name.startswith(("services.", "shared.")) and hasattr(module, "log"):
                patch.setattr(module, "log", structlog.get_logger(name))
        yield lambda: capsys.readouterr().err


class Happened(EventData, frozen=True, kw_only=True):
    """The one event of the harness's domain."""

    DOMAIN: ClassVar[str] = "harness"
    EVENT: ClassVar[str] = "happened"
    name: str

    @property
    def entity_id(self) -> str:
        """Its name."""
        return self.name


@dataclass
class Harness:
    """A service that has nothing of its own."""

    name: str
    database: Database
    broker: Broker
    relay: Relay
    seen: list[tuple[str, int]] = field(default_factory=list)
    """Entity and version of each event that took effect."""
    failing: set[str] = field(default_factory=set)
    """Entities whose events fail."""
    indifferent: set[str] = field(default_factory=set)
    """Entities whose events mean nothing to it."""
    together: bool = False
    """It takes the events that come together as one batch."""
    batches: list[int] = field(default_factory=list)
    """How many came together each time."""
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    """Set by the test that holds an event up; see `held_up`."""
    held_up: set[str] = field(default_factory=set)
    """Entities whose events wait for the gate."""
    begun: list[str] = field(default_factory=list)
    """Entities whose events have come to that."""

    def event(self, entity: str) -> EventData:
        """An event of this service's own domain."""
        return Happened(name=entity)

    async def publish(self, entity: str, version: int = 1) -> UUID:
        """Record an event in a transaction of its own; its id."""
        draft = Draft(data=self.event(entity), version=version, occurred_at=datetime.now(UTC))
        async with self.database.transaction() as transaction:
            await record_event(transaction, draft, self.relay)
        return draft.event_id

    async def all_published(self) -> bool:
        """Whether the outbox has nothing left to publish."""
        return await oldest_unpublished(self.database) is None

    def consumer(self, *, clock: Clock = utc_now) -> Consumer:
        """A consumer of this service's own events."""
        return Consumer(
            name=self.name,
            database=self.database,
            broker=self.broker,
            subscriptions=self.subscriptions,
            clock=clock,
        )

    @property
    def subscriptions(self) -> list[AnySubscription]:
        """What it listens to."""
        if self.together:
            return [BatchSubscription(Happened, self._on_events)]
        return [Subscription(Happened, self._on_event, concerns=self._concerns)]

    def _concerns(self, data: Any) -> bool:
        return data.name not in self.indifferent

    async def _on_events(self, transaction: Transaction, received: Sequence[tuple[Any, CloudEvent]]) -> None:
        self.batches.append(len(received))
        for data, event in received:
            await self._on_event(transaction, data, event)

    async def _on_event(self, _: Transaction, data: Any, event: CloudEvent) -> None:
        if data.name in self.held_up:
            self.begun.append(data.name)
            await self.gate.wait()
        if data.name in self.failing:
            raise RuntimeError("told to fail")
        self.seen.append((data.name, event.sequence))


@pytest.fixture
def harness_dsn(postgres_server: PostgresServer) -> Iterator[str]:
    """A schema that holds the shared tables only."""
    dsn = postgres_server.make_service_database("auth")
    asyncio.run(_create_shared_tables(dsn))
    yield dsn
    postgres_server.drop_database(dsn)


async def _create_shared_tables(dsn: str) -> None:
    engine = create_async_engine(dsn.replace("postgresql://", "postgresql+asyncpg://", 1))
    async with engine.begin() as connection:
        await connection.run_sync(shared_metadata.create_all)
    await engine.dispose()


@asynccontextmanager
async def running(*turning: Callable[[], Awaitable[None]]) -> AsyncIterator[None]:
    """Run background work for the length of a block."""
    tasks = [asyncio.ensure_future(turn()) for turn in turning]
    try:
        yield
    finally:
        await cancel_all(tasks)


@pytest.fixture
async def stream_kept(nats_server: NatsServer) -> AsyncIterator[None]:
    """The event stream and its copy for tools, kept as by auth, under auth's own rights."""
    broker = Broker(nats_server.service_url("auth"), name="auth", inbox="_INBOX.auth")

    async def copied() -> bool:
        try:
            await tools.jetstream().stream_info(STREAM)
        except NotFoundError:
            return False
        return True

    async with nats_client(nats_server.tools_url) as tools, running(broker.run, StreamKeeper(broker).loop.run):
        await eventually(copied, "the tools' copy")
        yield


@pytest.fixture
async def harness(harness_dsn: str, nats_server: NatsServer) -> AsyncIterator[Harness]:
    """Database, broker and relay of a service; the broker is connected, the relay does not run yet."""
    name = Happened.DOMAIN
    database = Database(harness_dsn, pool_size=4)
    broker = Broker(nats_server.url, name=name)
    relay = Relay(database=database, broker=broker, service=name)
    async with running(broker.run):
        await eventually(lambda: broker.connected, "broker connected")
        yield Harness(name, database, broker, relay)
    await database.close()
