"""The application factory: what every service's app is made of, wired in one place."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from typing import Any

import structlog
from litestar import Controller, Litestar
from litestar.datastructures import State
from litestar.di import Provide
from litestar.middleware import DefineMiddleware

from shared.audit import audit_endpoint, purge_audit
from shared.background import Loop, cancel_all, each_in_turn, outliving_others
from shared.clock import Clock, utc_now
from shared.contracts.audit import AuditQuery, audit_subject
from shared.contracts.health import health_subject
from shared.database import Database
from shared.encryption import Cipher
from shared.idempotency import purge_idempotency_keys
from shared.leased_worker import LeasedWorker
from shared.logs import configure_logs
from shared.measures import Measure, inbox_measures, measuring, outbox_measure
from shared.messaging import AnySubscription, Broker, Consumer, Relay, RpcEndpoint
from shared.messaging.rpc import Empty, RpcServer
from shared.messaging.stream import StreamKeeper
from shared.routes import FRONT_DOOR, ServiceName
from shared.settings import CommonSettings
from shared.tracing import close_traces, configure_traces
from shared.web.address import TRUSTED_PROXIES
from shared.web.authentication import AuthenticationMiddleware, IdentityCache, RevocationListener, Verify
from shared.web.body import SMALL_BODY_BYTES, BodyMiddleware
from shared.web.console import ConsolePageController
from shared.web.docs import ApiDocument, FrontDocsController, OpenApiPart, openapi_subject
from shared.web.drain import Drain
from shared.web.errors import EXCEPTION_HANDLERS
from shared.web.fast_routes import FastRoute, FastRoutes
from shared.web.health import FrontHealthController, HealthCheck, service_health_controller
from shared.web.key_holds import KEY_HOLDS, KeyHolds
from shared.web.openapi import openapi_config, own_document
from shared.web.request import RequestLayer
from shared.web.response import StructResponse
from shared.web.upgrade import UpgradeLayer
from shared.web.verification import verify_by_http, verify_by_rpc

log = structlog.get_logger(__name__)

_PURGE_SECONDS = 600.0
DRAIN = "drain"
"""Of the application's state: its Drain."""


@dataclass(frozen=True)
class Foundation:
    """What a service's own parts are built on."""

    service: ServiceName
    settings: CommonSettings
    database: Database
    broker: Broker
    relay: Relay
    cipher: Cipher
    clock: Clock = utc_now

    @classmethod
    def open(cls, service: ServiceName, settings: CommonSettings, clock: Clock = utc_now) -> "Foundation":
        """Build it from settings; nothing is connected yet."""
        configure_logs(service=service, replica=settings.replica, level=settings.log_level)
        configure_traces(service=service, replica=settings.replica, endpoint=settings.otlp_endpoint)
        database = Database(settings.database_url, pool_size=settings.database_pool_size, name=settings.replica)
        broker = Broker(
            settings.nats_url,
            name=settings.replica,
            inbox=f"_INBOX.{service}",
            stream_replicas=settings.stream_replicas,
            stream_max_bytes=settings.stream_max_bytes,
            ca_file=settings.nats_ca_file,
            credentials_file=settings.nats_credentials_file,
        )
        relay = Relay(database=database, broker=broker, service=service, clock=clock)
        return cls(service, settings, database, broker, relay, Cipher(settings.secret_keys), clock)

    def ask_auth(self) -> Verify:
        """How this service checks keys: over NATS, and straight while NATS is away, if the settings say where."""
        settings = self.settings
        second_way = None
        if settings.auth_urls and settings.internal_token:
            second_way = verify_by_http(settings.auth_urls.split(","), settings.internal_token)
        return verify_by_rpc(self.broker, second_way)


@dataclass(frozen=True)
class ServiceParts:
    """What makes a service this one."""

    controllers: Sequence[type[Controller]]
    verify: Verify
    """How keys are checked."""
    resources: Mapping[str, Any] = field(default_factory=dict)
    """Injected into handlers by name, and the application's state, for guards."""
    fast_routes: Sequence[FastRoute] = ()
    """Of its routes, those that are answered before the framework."""
    subscriptions: Sequence[AnySubscription] = ()
    rpc: Sequence[RpcEndpoint[Any, Any]] = ()
    loops: Sequence[Loop] = ()
    """The service's own loops, watched by health; relay and consumer come by themselves."""
    measures: Sequence[Measure] = ()
    """Of its own gauges, beside those that every service has."""
    checks: Sequence[Callable[[], str | None]] = ()
    """Each says what is wrong, for health; None: nothing is."""
    workers: Sequence[LeasedWorker[Any, Any]] = ()
    """Their loops are run like the others; they give back what they have begun at the end."""
    tasks: Sequence[Callable[[], Awaitable[None]]] = ()
    """Run from start to stop, such as watches; one that ends or raises is logged and started again."""
    releases: Sequence[Callable[[], Awaitable[None]]] = ()
    """Called when held answers have to end, before the last requests are served."""
    closers: Sequence[Callable[[], Awaitable[None]]] = ()
    """Called at the end, such as clients' close."""


def create_service_app(base: Foundation, parts: ServiceParts) -> Litestar:
    """The service's application, with what all services have: keys, errors, health, docs, metrics, messages."""
    consumer = _consumer(base, parts)
    purge = Loop("purge", _purge(base, consumer), period_seconds=_PURGE_SECONDS, stale_seconds=3 * _PURGE_SECONDS)
    loops = [
        base.relay.loop,
        *([consumer.loop] if consumer else []),
        *parts.loops,
        *(worker.loop for worker in parts.workers),
        purge,
    ]
    if base.service == FRONT_DOOR:
        # the one whose user may change the stream, and is believed by all already
        loops.append(StreamKeeper(base.broker).loop)
    releases = [*parts.releases, *([consumer.hand_over] if consumer else [])]
    drain = Drain()
    health_check = HealthCheck(
        service=base.service,
        database=base.database,
        broker=base.broker,
        consumer=consumer,
        relay=base.relay,
        loops=loops,
        checks=parts.checks,
        drain=drain,
        clock=base.clock,
    )
    # not one of those that health looks at: what it cannot measure is a fault of something else, which has a name
    measure = measuring(_measures(base, parts, consumer, health_check))
    identities = IdentityCache(parts.verify, clock=base.clock, failures_per_minute=base.settings.failed_keys_per_minute)
    RevocationListener(base.broker, identities)
    resources = {
        "broker": base.broker,
        "health_check": health_check,
        "service": base.service,
        "api_document": ApiDocument(base.broker),
        **parts.resources,
    }
    app = Litestar(
        [
            FrontDocsController,
            ConsolePageController,
            FrontHealthController,
            service_health_controller(base.service),
            *parts.controllers,
        ],
        dependencies={name: _provide(resource) for name, resource in resources.items()},
        exception_handlers=EXCEPTION_HANDLERS,
        lifespan=[_lifespan(base, parts, [*loops, measure], releases, drain)],
        middleware=[
            DefineMiddleware(AuthenticationMiddleware, cache=identities, proxies=base.settings.trusted_proxies),
            DefineMiddleware(BodyMiddleware, seconds=base.settings.body_seconds),
        ],
        openapi_config=openapi_config(),
        request_max_body_size=SMALL_BODY_BYTES,
        response_class=StructResponse,
        state=State(
            {
                **resources,
                DRAIN: drain,
                KEY_HOLDS: KeyHolds(parts.verify, drain, clock=base.clock),
                TRUSTED_PROXIES: base.settings.trusted_proxies,
            }
        ),
        logging_config=None,
    )
    RpcServer(
        broker=base.broker,
        service=base.service,
        endpoints=[
            *parts.rpc,
            RpcEndpoint(health_subject(base.service), Empty, health_check.check),
            RpcEndpoint(openapi_subject(base.service), Empty, _own_document(app, base.service)),
            RpcEndpoint(audit_subject(base.service), AuditQuery, audit_endpoint(base.database)),
        ],
    )
    fast = FastRoutes(
        app.asgi_handler,
        identities,
        parts.fast_routes,
        body_seconds=base.settings.body_seconds,
        proxies=base.settings.trusted_proxies,
    )
    app.asgi_handler = UpgradeLayer(RequestLayer(fast, drain), drain)
    return app


def _consumer(base: Foundation, parts: ServiceParts) -> Consumer | None:
    if not parts.subscriptions:
        return None
    return Consumer(
        name=base.service,
        database=base.database,
        broker=base.broker,
        subscriptions=parts.subscriptions,
        clock=base.clock,
    )


def _measures(
    base: Foundation, parts: ServiceParts, consumer: Consumer | None, health_check: HealthCheck
) -> Sequence[Measure]:
    of_consumer = inbox_measures(base.database, consumer, base.clock) if consumer else ()
    return (health_check.measure, outbox_measure(base.database, base.clock), *of_consumer, *parts.measures)


def _provide(resource: Any) -> Provide:
    return Provide(lambda: resource, use_cache=True, sync_to_thread=False)


def _purge(base: Foundation, consumer: Consumer | None) -> Callable[[], Awaitable[bool]]:
    purges: list[Callable[[datetime], Awaitable[bool]]] = [
        base.relay.purge,
        partial(purge_idempotency_keys, base.database),
        partial(purge_audit, base.database),
        *([consumer.purge] if consumer else []),
    ]

    async def purge() -> bool:
        now = base.clock()
        return await each_in_turn(partial(one, now) for one in purges)

    return purge


def _own_document(app: Litestar, service: ServiceName) -> Callable[[Empty], Awaitable[OpenApiPart]]:
    async def document(_: Empty) -> OpenApiPart:
        return OpenApiPart(own_document(app, service))

    return document


def _lifespan(
    base: Foundation,
    parts: ServiceParts,
    loops: Sequence[Loop],
    releases: Sequence[Callable[[], Awaitable[None]]],
    drain: Drain,
) -> Any:
    @asynccontextmanager
    async def lifespan(_: Litestar) -> AsyncIterator[None]:
        running = [asyncio.create_task(_kept_running(base.broker.run), name="broker")]
        running += [asyncio.create_task(loop.run(), name=loop.name) for loop in loops]
        running += [asyncio.create_task(_kept_running(task)) for task in parts.tasks]
        releasing = asyncio.create_task(_release(drain, releases))
        log.info("service_started")
        try:
            yield
        finally:
            drain.release()
            await releasing
            await cancel_all(running)
            for close in (*(worker.close for worker in parts.workers), *parts.closers, base.database.close):
                await close()
            await asyncio.to_thread(close_traces)
            log.info("service_stopped")

    return lifespan


async def _release(drain: Drain, releases: Sequence[Callable[[], Awaitable[None]]]) -> None:
    await drain.released()
    for release in releases:
        await release()


async def _kept_running(task: Callable[[], Awaitable[None]]) -> None:
    while True:
        try:
            with outliving_others():
                await task()
        except Exception as error:
            log.exception("task_failed", error=type(error).__name__)
        await asyncio.sleep(1)
