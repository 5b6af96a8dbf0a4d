"""RPC between services over NATS request/reply, registered with the NATS micro protocol.

https://github.com/nats-io/nats-architecture-and-design/blob/main/adr/ADR-32.md: `$SRV.PING`, `INFO` and `STATS` answer.
"""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import msgspec
import nats.errors
import structlog
from nats.micro import add_service
from nats.micro.request import Request
from nats.micro.service import EndpointConfig, Service

from shared.errors import BrokerUnavailable, Unavailable
from shared.messaging.broker import UNREACHABLE, Broker
from shared.tracing import Kind, span

log = structlog.get_logger(__name__)

RequestT = TypeVar("RequestT", bound=msgspec.Struct)
ReplyT = TypeVar("ReplyT", bound=msgspec.Struct)

_VERSION = "1.0.0"
_TRACEPARENT = "traceparent"
"""Header of a request that belongs to a trace."""


@dataclass(frozen=True)
class RpcEndpoint(Generic[RequestT, ReplyT]):
    subject: str
    """Where callers send to."""
    request: type[RequestT]
    handler: Callable[[RequestT], Awaitable[ReplyT]]
    """Refusals that a caller must tell apart are part of the reply; an exception is an outage to the caller."""


class Empty(msgspec.Struct, frozen=True):
    """A request without fields."""


async def call_rpc(
    broker: Broker, subject: str, request: msgspec.Struct, reply: type[ReplyT], *, timeout_seconds: float = 2.0
) -> ReplyT:
    """Ask another service.

    Raises:
        Unavailable: No answer in time, nobody listens, the broker is away, or the other side failed. The request may
            have been carried out.
    """
    await broker.begun(timeout_seconds)
    client = broker.client
    try:
        with span(f"ask {subject}", kind=Kind.CLIENT) as traced:
            headers = None if traced is None else {_TRACEPARENT: traced.traceparent}
            message = await client.request(
                subject, msgspec.json.encode(request), timeout=timeout_seconds, headers=headers
            )
    except nats.errors.NoRespondersError as error:
        raise Unavailable(f"No service answers on {subject}, try again shortly", retry_after_seconds=2) from error
    except UNREACHABLE as error:
        raise BrokerUnavailable(subject=subject, cause=type(error).__name__) from error
    if message.headers and "Nats-Service-Error-Code" in message.headers:
        raise Unavailable(
            "A service that this request needs has failed, try again shortly", retry_after_seconds=2, subject=subject
        )
    return msgspec.json.decode(message.data, type=reply)


class RpcServer:
    """Registers a service's endpoints at each connect; replicas share the work by queue group.

    Args:
        service: Name in the micro protocol.
        endpoints: What it answers.
    """

    def __init__(self, *, broker: Broker, service: str, endpoints: Sequence[RpcEndpoint[Any, Any]]) -> None:
        self._broker = broker
        self._service = service
        self._endpoints = endpoints
        self._registered: Service | None = None
        broker.on_connect(self._register)

    async def _register(self) -> None:
        if self._registered is not None:
            return  # nats-py renews the subscriptions of a connection by itself
        self._registered = await add_service(
            self._broker.client,
            name=f"gpudev-{self._service}",
            version=_VERSION,
            description=f"GPU Dev {self._service}",
        )
        for endpoint in self._endpoints:
            name = endpoint.subject.rpartition(".")[2]
            await self._registered.add_endpoint(
                EndpointConfig(name=name, subject=endpoint.subject, handler=_answering(endpoint))
            )


def _answering(endpoint: RpcEndpoint[Any, Any]) -> Callable[[Request], Awaitable[None]]:
    async def answer(request: Request) -> None:
        try:
            asked = msgspec.json.decode(request.data, type=endpoint.request)
            parent = (request.headers or {}).get(_TRACEPARENT)
            with span(f"answer {endpoint.subject}", parent=parent, kind=Kind.SERVER):
                reply = await endpoint.handler(asked)
        except Unavailable as error:
            log.warning("rpc_unavailable", subject=endpoint.subject, error=type(error).__name__)
            await request.respond_error("503", "unavailable")
        except Exception as error:
            log.exception("rpc_failed", subject=endpoint.subject, error=type(error).__name__, exc_info=error)
            await request.respond_error("500", "failed")
        else:
            await request.respond(msgspec.json.encode(reply))

    return answer
