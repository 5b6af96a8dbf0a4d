"""What the event stream, its copy for tools and the consumers on it are to look like, and who sees to it."""

import dataclasses
from typing import Any

import structlog
from nats.js import JetStreamContext
from nats.js.api import ExternalStream, RePublish, StreamConfig, StreamInfo, StreamSource
from nats.js.errors import NotFoundError
from prometheus_client import Counter

from shared.background import Loop
from shared.contracts.events import STREAM, SUBJECT_ROOT
from shared.errors import BrokerUnavailable
from shared.messaging.broker import UNREACHABLE, Broker

log = structlog.get_logger(__name__)

CHECK_SECONDS = 5.0
"""How often configurations are looked at."""
COPY_API = "gpudev.tools"
"""Where JetStream of the tools' account answers the one who keeps the copy."""
_COPY_OF = ExternalStream(api="gpudev.origin", deliver="gpudev.copy")
_UNSET: tuple[Any, ...] = (None, False, 0, -1, "", "none", [])
_SERVERS_OWN = frozenset({"metadata", "placement"})
_put_right = Counter("gpudev_broker_put_right", "Streams and consumers whose configuration was not ours", ["name"])


def differences(found: Any, wanted: Any) -> list[str]:
    """Names of the fields in which the broker's configuration is not the wanted one.

    Both are of one class of nats-py. What the wanted one leaves out must be off.
    """
    return [
        field.name
        for field in dataclasses.fields(wanted)
        if field.name not in _SERVERS_OWN and not _same(getattr(found, field.name), getattr(wanted, field.name))
    ]


def report(name: str, differing: list[str]) -> None:
    """Say that something at the broker is not as we made it."""
    _put_right.labels(name).inc()
    log.error("broker_configuration_differs", name=name, differing=differing)


def _same(found: Any, wanted: Any) -> bool:
    if wanted in _UNSET:
        return found in _UNSET or (dataclasses.is_dataclass(found) and not any(vars(found).values()))
    if isinstance(wanted, list):
        return sorted(map(repr, found or [])) == sorted(map(repr, wanted))
    if dataclasses.is_dataclass(wanted) and dataclasses.is_dataclass(found):
        return not differences(found, wanted)
    return bool(found == wanted)


class StreamKeeper:
    """Sees that the stream and its copy are there and as they are to be. One service does, the one with the rights.

    The others make the stream when it is not there, as none may have to wait for another.
    """

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self.loop = Loop("stream_keeper", self._turn, period_seconds=CHECK_SECONDS, stale_seconds=4 * CHECK_SECONDS)
        broker.on_connect(self._after_connect)

    async def _after_connect(self) -> None:
        self.loop.obstacle_gone()

    async def _turn(self) -> None:
        try:
            stream = await self._broker.ensure_stream()
            await _keep(self._broker.jetstream, stream, self._broker.stream, STREAM)
            await self._keep_copy(stream)
        except UNREACHABLE as error:
            raise BrokerUnavailable(cause=type(error).__name__, text=str(error)) from error

    async def _keep_copy(self, stream: StreamInfo) -> None:
        tools = self._broker.client.jetstream(prefix=COPY_API)
        wanted = copy_of(self._broker.stream)
        try:
            copy = await tools.stream_info(STREAM)
        except NotFoundError:
            copy = None
        if copy is not None and stream.created and copy.created and copy.created < stream.created:
            # of a stream that was lost: it would wait until the new one has as many messages
            await tools.delete_stream(STREAM)
            copy = None
        if copy is None:
            log.info("stream_copy_created", stream=STREAM)
            copy = await tools.add_stream(wanted)
        await _keep(tools, copy, wanted, f"{STREAM} for tools")


def copy_of(stream: StreamConfig) -> StreamConfig:
    """Configuration of the copy of a stream, in the tools' account; it says each event again for those who listen."""
    events = f"{SUBJECT_ROOT}.>"
    return StreamConfig(
        name=stream.name,
        storage=stream.storage,
        retention=stream.retention,
        discard=stream.discard,
        max_age=stream.max_age,
        max_bytes=stream.max_bytes,
        num_replicas=stream.num_replicas,
        mirror=StreamSource(name=stream.name or "", external=_COPY_OF),
        republish=RePublish(src=events, dest=events, headers_only=False),
    )


async def _keep(jetstream: JetStreamContext, found: StreamInfo, wanted: StreamConfig, name: str) -> None:
    differing = differences(found.config, wanted)
    if differing:
        report(name, differing)
        await jetstream.update_stream(wanted)
