"""Node ports: connections to 127.0.0.1 go on to a ready pod of the Service, as kube-proxy has it."""

import asyncio
import contextlib
import logging
import random
from functools import partial

from deploy.local.cluster.fleet import NODE_ADDRESS
from deploy.local.cluster.machinery.objects import Object
from deploy.local.cluster.registry.services import has_node_ports
from deploy.local.cluster.registry.store import Change, Store
from deploy.local.ports import claim, give_up

logger = logging.getLogger(__name__)

_CHUNK = 65536
_RETRY_SECONDS = 1.0


class NodePortProxy:
    """Listens on the node ports of all Services."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._changed = asyncio.Event()
        self._changed.set()
        self._servers: dict[int, asyncio.Server] = {}

    def on_change(self, change: Change) -> None:
        """Subscribes to the store."""
        if change.resource == "services":
            self._changed.set()

    async def run(self) -> None:
        """Opens and closes ports as Services come and go; runs until cancelled."""
        try:
            while True:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(None if self._complete else _RETRY_SECONDS):
                        await self._changed.wait()
                self._changed.clear()
                await self._follow()
        finally:
            for server in self._servers.values():
                server.close()

    @property
    def _complete(self) -> bool:
        return self._servers.keys() >= self._wanted()

    def _wanted(self) -> set[int]:
        return {
            port["nodePort"]
            for service in self._store.values("services")
            if has_node_ports(service)
            for port in service["spec"]["ports"]
            if port["protocol"] == "TCP"
        }

    async def _follow(self) -> None:
        wanted = self._wanted()
        for port in self._servers.keys() - wanted:
            self._servers.pop(port).close()
            give_up(port)
        for port in wanted - self._servers.keys():
            claim(port)  # it was chosen before this process began, or by whoever made the Service
            try:
                self._servers[port] = await asyncio.start_server(partial(self._accept, port), NODE_ADDRESS, port)
            except OSError as error:
                logger.warning("node port %d cannot be opened: %s", port, error)

    async def _accept(self, node_port: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            endpoints = self._endpoints(node_port)
            if endpoints:
                await _connect(reader, writer, *random.choice(endpoints))  # noqa: S311  as kube-proxy does
        except OSError:
            logger.debug("connection to node port %d ended", node_port, exc_info=True)
        finally:
            writer.close()

    def _endpoints(self, node_port: int) -> list[tuple[str, int]]:
        """Addresses of the ready pods behind a node port."""
        for service in self._store.values("services"):
            for port in service["spec"].get("ports") or [] if has_node_ports(service) else []:
                if port.get("nodePort") == node_port:
                    pods = self._store.values("pods", service["metadata"]["namespace"])
                    selector = service["spec"].get("selector") or {}
                    ready = [pod for pod in pods if selector and _is_ready(pod) and _has_labels(pod, selector)]
                    return [(pod["status"]["podIP"], _target(port, pod)) for pod in ready]
        return []


def _is_ready(pod: Object) -> bool:
    conditions = pod["status"].get("conditions", [])
    return any(entry["type"] == "Ready" and entry["status"] == "True" for entry in conditions)


def _has_labels(pod: Object, selector: dict[str, str]) -> bool:
    return selector.items() <= (pod["metadata"].get("labels") or {}).items()


def _target(port: Object, pod: Object) -> int:
    target = port.get("targetPort") or port["port"]
    if isinstance(target, int):
        return target
    named = (entry for container in pod["spec"]["containers"] for entry in container.get("ports") or [])
    return next((entry["containerPort"] for entry in named if entry.get("name") == target), 0)


async def _connect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, host: str, port: int) -> None:
    to_reader, to_writer = await asyncio.open_connection(host, port)
    try:
        async with asyncio.TaskGroup() as both:
            both.create_task(_pump(reader, to_writer))
            both.create_task(_pump(to_reader, writer))
    except* OSError:
        logger.debug("a side has gone", exc_info=True)
    finally:
        to_writer.close()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(_CHUNK):
        writer.write(data)
        await writer.drain()
    writer.write_eof()
