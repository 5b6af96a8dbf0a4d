"""Kubernetes nodes and pods, read only: lists, watches, and the one GET that may say that a node is gone.

Bodies are read raw and decoded by msgspec into the few fields that matter: the client's own models cost many times the
work on a large cluster. Every call has an end: the server's timeoutSeconds and, since a half-open connection never
hears of it, the client's own.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Generic, TypeVar

import aiohttp
import msgspec
from kubernetes.aio import client, config
from kubernetes.aio.config.config_exception import ConfigException

from services.capacity.domain.kubernetes_objects import NodeObject, PodObject, version_number
from shared.errors import Unavailable

ObjectT = TypeVar("ObjectT", NodeObject, PodObject)

_OK = 200
_UNAUTHORIZED = 401
_NOT_FOUND = 404
_PAGE = 500
_READ_SECONDS = 10.0
_GRACE_SECONDS = 5.0
"""How much longer than the server's timeoutSeconds a watch may take."""


class ClusterUnavailable(Unavailable):
    """The Kubernetes API did not answer, or not with what was asked for; nothing is known by that."""

    def __init__(self, **context: object) -> None:
        super().__init__("The cluster does not answer, try again shortly", retry_after_seconds=2, **context)


class Listing(msgspec.Struct, Generic[ObjectT], frozen=True):
    """A full list at one resourceVersion."""

    items: list[ObjectT]
    resource_version: str


class Change(msgspec.Struct, Generic[ObjectT], frozen=True):
    """One event of a watch."""

    deleted: bool
    object: ObjectT


class _ListMeta(msgspec.Struct, frozen=True, rename="camel"):
    resource_version: str = ""
    next_page: str | None = msgspec.field(default=None, name="continue")


class _Page(msgspec.Struct, Generic[ObjectT], frozen=True):
    metadata: _ListMeta
    items: list[ObjectT] | None = None


class _Line(msgspec.Struct, frozen=True):
    type: str
    object: msgspec.Raw


class Cluster:
    """One client of the Kubernetes API. Connecting is lazy: a service starts while the cluster is away.

    Args:
        kubeconfig: Path; None: the pod's service account.
    """

    def __init__(self, kubeconfig: str | None) -> None:
        self._kubeconfig = kubeconfig
        self._client: Any = None
        self._connecting = asyncio.Lock()

    async def close(self) -> None:
        """Close the connections."""
        if self._client is not None:
            connected, self._client = self._client, None
            await connected.close()

    async def list_nodes(self) -> Listing[NodeObject]:
        """Every node.

        Raises:
            ClusterUnavailable: No complete list came.
        """
        return await self._list("list_node", _Page[NodeObject])

    async def list_pods(self) -> Listing[PodObject]:
        """Every pod of every namespace; raises as `list_nodes` does."""
        return await self._list("list_pod_for_all_namespaces", _Page[PodObject])

    def watch_nodes(self, resource_version: str, seconds: float) -> AsyncGenerator[Change[NodeObject], None]:
        """Changes of nodes after a list; ends after `seconds`.

        Raises:
            ClusterUnavailable: The watch broke, or its start is too old (410): list again.
        """
        return self._watch("list_node", NodeObject, resource_version, seconds)

    def watch_pods(self, resource_version: str, seconds: float) -> AsyncGenerator[Change[PodObject], None]:
        """Changes of pods after a list; as `watch_nodes`."""
        return self._watch("list_pod_for_all_namespaces", PodObject, resource_version, seconds)

    async def node_uid(self, name: str) -> str | None:
        """Uid of the node now, by a live GET; None: there is none of this name (404).

        Raises:
            ClusterUnavailable: Anything else than an answer. It does not mean that the node is gone.
        """
        async with self._response("read_node", _READ_SECONDS, name=name) as response:
            if response.status == _NOT_FOUND:
                return None
            _check(response)
            node = msgspec.json.decode(await response.read(), type=NodeObject)
            return node.metadata.uid

    async def _list(self, method: str, page_type: Any) -> Listing[Any]:
        items: list[Any] = []
        following: str | None = None
        while True:
            async with self._response(method, _READ_SECONDS, limit=_PAGE, _continue=following) as response:
                _check(response)
                page = msgspec.json.decode(await response.read(), type=page_type)
            items += page.items or []
            following = page.metadata.next_page
            if not following:
                return Listing(items, page.metadata.resource_version)

    async def _watch(
        self, method: str, object_type: Any, resource_version: str, seconds: float
    ) -> AsyncGenerator[Change[Any], None]:
        limits = {"timeout_seconds": max(1, round(seconds)), "resource_version": resource_version}
        async with self._response(
            method, seconds + _GRACE_SECONDS, watch=True, allow_watch_bookmarks=True, **limits
        ) as response:
            _check(response)
            async for text in response.content:
                line = msgspec.json.decode(text, type=_Line)
                if line.type == "ERROR":
                    raise ClusterUnavailable(watch=method, error=bytes(line.object)[:200].decode(errors="replace"))
                if line.type != "BOOKMARK":
                    yield Change(line.type == "DELETED", msgspec.json.decode(line.object, type=object_type))

    @asynccontextmanager
    async def _response(self, method: str, seconds: float, **parameters: Any) -> AsyncIterator[Any]:
        given = {name: value for name, value in parameters.items() if value is not None}
        try:
            core = client.CoreV1Api(await self._connect())
            call = getattr(core, f"{method}_without_preload_content")
            async with await call(_request_timeout=float(seconds), **given) as response:
                if response.status == _UNAUTHORIZED:
                    await self.close()  # the credentials may have been renewed: read them again next time
                yield response
        except (aiohttp.ClientError, OSError, TimeoutError, ConfigException, msgspec.DecodeError) as error:
            raise ClusterUnavailable(call=method, cause=type(error).__name__, message=str(error)[:200]) from error

    async def _connect(self) -> Any:
        async with self._connecting:
            if self._client is None:
                configuration = client.Configuration()
                if self._kubeconfig is None:
                    config.load_incluster_config(client_configuration=configuration)  # type: ignore[no-untyped-call]
                else:
                    await config.load_kube_config(  # type: ignore[no-untyped-call]
                        self._kubeconfig, client_configuration=configuration
                    )
                self._client = client.ApiClient(configuration=configuration)
            return self._client


def version_of(listing: Listing[Any]) -> int:
    """A list's resourceVersion as a number."""
    return version_number(listing.resource_version)


def _check(response: Any) -> None:
    if response.status != _OK:
        raise ClusterUnavailable(status=response.status)
