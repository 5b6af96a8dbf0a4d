"""Health: the contract's page at the ingress, each service's own, and the probes of an orchestrator.

Health means that work gets done: the age of the oldest unpublished event, and the last good turn of every loop.
"""

import asyncio
from collections.abc import Callable, Sequence
from datetime import datetime

import sqlalchemy as sa
from litestar import Controller, MediaType, Response, get
from litestar.di import NamedDependency
from litestar.openapi.datastructures import ResponseSpec
from prometheus_client import Gauge

from shared.background import Loop
from shared.clock import Clock, utc_now
from shared.contracts.health import ServiceHealth, health_subject
from shared.database import Database, Statement
from shared.database.schema import SchemaCheck
from shared.errors import Unavailable
from shared.messaging import Broker, Consumer, Relay, call_rpc
from shared.messaging.outbox import oldest_unpublished
from shared.messaging.rpc import Empty
from shared.routes import SERVICES
from shared.web.authentication import PUBLIC
from shared.web.drain import Drain
from shared.web.errors import bad_request
from shared.web.response import Answer

_ANSWER_SECONDS = 1.5
_PART_SECONDS = 1.0
_OLDEST_EVENT_SECONDS = 8.0
"""An event that is older has nobody who publishes it: a relay has its turns all the time."""
_faults = Gauge("gpudev_health_faults", "What /health names as a fault of the service, as this replica sees it")
_SELECT_ONE = Statement(sa.select(sa.literal(1)))

HEALTHY = "healthy"
UNHEALTHY = "unhealthy"


class Health(Answer, frozen=True, kw_only=True):
    status: str
    """healthy or unhealthy."""
    database: str
    """healthy or unhealthy, in every service."""
    queue: str
    """The message broker: healthy or unhealthy, as every service sees it."""
    timestamp: datetime
    services: dict[str, ServiceHealth]
    """Each service's own state; a service that does not answer is unhealthy."""


class HealthCheck:
    """Asks the service's own parts; never takes longer than a second and a half.

    Args:
        consumer: Of the service; None: it listens to no events.
        relay: Says whether the stream takes events.
        loops: Background loops; one without a good turn for too long makes the service unhealthy.
        checks: The service's own, each with what is wrong.
        drain: Says whether this replica is on its way out.
        clock: Tells for how long an event has waited.
    """

    def __init__(
        self,
        *,
        service: str,
        database: Database,
        broker: Broker,
        consumer: Consumer | None,
        relay: Relay,
        loops: Sequence[Loop],
        checks: Sequence[Callable[[], str | None]] = (),
        drain: Drain,
        clock: Clock = utc_now,
    ) -> None:
        self._service = service
        self._drain = drain
        self._database = database
        self._schema = SchemaCheck(service, database)
        self._broker = broker
        self._consumer = consumer
        self._relay = relay
        self._loops = loops
        self._checks = checks
        self.clock = clock

    async def check(self, _: Empty | None = None) -> ServiceHealth:
        """The service's state now."""
        database, queue, unpublished, (waiting, consumer) = await asyncio.gather(
            self._database_fault(), self._queue_fault(), self._unpublished_seconds(), self._consumer_state()
        )
        relay = self._relay.fault()
        own = [*(loop.fault() for loop in self._loops), *(check() for check in self._checks)]
        late = unpublished is not None and unpublished > _OLDEST_EVENT_SECONDS
        faults = [fault for fault in (database, queue, relay, consumer, *own) if fault]
        if late:
            faults.append(f"an event has waited {unpublished:.0f} s to be published")
        return ServiceHealth(
            service=self._service,
            status=UNHEALTHY if faults else HEALTHY,
            database=UNHEALTHY if database else HEALTHY,
            queue=UNHEALTHY if queue or relay or consumer or late else HEALTHY,
            faults=faults,
            oldest_unpublished_seconds=unpublished,
            unprocessed_messages=waiting,
        )

    async def measure(self) -> None:
        """Tell in the metrics how many faults there are."""
        _faults.set(len((await self.check()).faults))

    async def not_ready(self) -> str | None:
        """Why no requests should be sent here; None when the schema is there, as the code needs it."""
        return self.stopping() or await self._schema_fault()

    def stopping(self) -> str | None:
        """That this replica is on its way out; None when it is not."""
        return "this replica is about to stop" if self._drain.begun else None

    async def _database_fault(self) -> str | None:
        try:
            async with asyncio.timeout(_PART_SECONDS):
                await self._database.fetch_value(_SELECT_ONE)
        except (Unavailable, TimeoutError) as error:
            return f"the database does not answer ({type(error).__name__})"
        return None

    async def _schema_fault(self) -> str | None:
        try:
            async with asyncio.timeout(_PART_SECONDS):
                return await self._schema.fault()
        except (Unavailable, TimeoutError) as error:
            return f"the database does not answer ({type(error).__name__})"

    async def _queue_fault(self) -> str | None:
        if not self._broker.connected:
            return "the broker is not connected"
        try:
            async with asyncio.timeout(_PART_SECONDS):
                await self._broker.ask()
        except (Unavailable, TimeoutError) as error:
            return f"the broker does not answer ({type(error).__name__})"
        return None

    async def _unpublished_seconds(self) -> float | None:
        try:
            async with asyncio.timeout(_PART_SECONDS):
                oldest = await oldest_unpublished(self._database)
        except (Unavailable, TimeoutError):
            return None
        return None if oldest is None else max(0.0, (self.clock() - oldest).total_seconds())

    async def _consumer_state(self) -> tuple[int | None, str | None]:
        if self._consumer is None:
            return None, None
        try:
            async with asyncio.timeout(_PART_SECONDS):
                return await self._consumer.state()
        except TimeoutError:
            return None, None


async def ask_health(broker: Broker, service: str) -> ServiceHealth:
    """Another service's state, over NATS; a service that does not answer is unhealthy."""
    try:
        return await call_rpc(broker, health_subject(service), Empty(), ServiceHealth, timeout_seconds=_ANSWER_SECONDS)
    except Unavailable as error:
        unknown = "unknown"
        return ServiceHealth(
            service=service, status=UNHEALTHY, database=unknown, queue=unknown, faults=[f"no answer: {error.text}"]
        )


def _combined(parts: Sequence[str]) -> str:
    return UNHEALTHY if any(part != HEALTHY for part in parts) else HEALTHY


def _probe(fault: str | None) -> Response[str]:
    return Response(fault or "ok", status_code=503 if fault else 200)


def _status(status: str) -> int:
    return 200 if status == HEALTHY else 503


_HEALTH_RESPONSES = bad_request() | {
    503: ResponseSpec(data_container=Health, description="Something is unhealthy", generate_examples=False)
}
_SERVICE_RESPONSES = bad_request() | {
    503: ResponseSpec(data_container=ServiceHealth, description="It is unhealthy", generate_examples=False)
}


class FrontHealthController(Controller):
    """The health page of the whole, at the ingress."""

    opt = {PUBLIC: True}  # noqa: RUF012 - Litestar's class attribute
    tags = ["Health & Info"]  # noqa: RUF012 - Litestar's class attribute
    security = [{}]  # noqa: RUF012 - no key is asked for

    @get(
        "/health",
        operation_id="health",
        summary="Check API health and dependencies",
        responses=_HEALTH_RESPONSES,
    )
    async def health(
        self,
        broker: NamedDependency[Broker],
        health_check: NamedDependency[HealthCheck],
        service: NamedDependency[str],
    ) -> Response[Health]:
        """Health of every service; 503 when one is unhealthy."""
        others = [name for name in SERVICES if name != service]
        states = await asyncio.gather(health_check.check(), *(ask_health(broker, name) for name in others))
        status = _combined([state.status for state in states])
        body = Health(
            status=status,
            database=_combined([state.database for state in states if state.database != "unknown"]),
            queue=_combined([state.queue for state in states if state.queue != "unknown"]),
            timestamp=health_check.clock(),
            services={state.service: state for state in sorted(states, key=lambda state: state.service)},
        )
        return Response(body, status_code=_status(status))


def service_health_controller(service: str) -> type[Controller]:
    """The controller of one service's own pages: its health at the ingress, and the probes."""

    class ServiceHealthController(Controller):
        opt = {PUBLIC: True}  # noqa: RUF012 - Litestar's class attribute
        tags = ["Health & Info"]  # noqa: RUF012 - Litestar's class attribute
        security = [{}]  # noqa: RUF012 - no key is asked for

        @get(
            f"/health/{service}",
            operation_id=f"health_{service}",
            summary=f"Health of the {service} service",
            responses=_SERVICE_RESPONSES,
        )
        async def service_health(self, health_check: NamedDependency[HealthCheck]) -> Response[ServiceHealth]:
            """This service's own state; 503 when it is unhealthy."""
            state = await health_check.check()
            return Response(state, status_code=_status(state.status))

        @get("/livez", include_in_schema=False, media_type=MediaType.TEXT)
        async def livez(self) -> str:
            """Whether the process serves at all."""
            return "ok"

        @get("/readyz", include_in_schema=False, media_type=MediaType.TEXT)
        async def readyz(self, health_check: NamedDependency[HealthCheck]) -> Response[str]:
            """Whether requests should be sent here."""
            return _probe(await health_check.not_ready())

        @get("/readyz/shutdown", include_in_schema=False, media_type=MediaType.TEXT)
        async def readyz_shutdown(self, health_check: NamedDependency[HealthCheck]) -> Response[str]:
            """One of the checks of readiness: whether the replica stays. It asks nobody."""
            return _probe(health_check.stopping())

    return ServiceHealthController
