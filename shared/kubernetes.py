"""The Kubernetes API as services call it: one client, its errors, lists, watches, streams, and quantities.

Bodies are decoded by msgspec into the few fields that a service reads: the official client's own models cost many times
the work on a large cluster. Every call has an end, the server's and, since a half-open connection never hears of it,
the client's own. Which objects there are, and what they mean, is the services' business.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Any, Generic, TypeVar
from urllib.parse import urlencode, urlsplit
from urllib.request import getproxies, proxy_bypass

import aiohttp
import msgspec
import structlog
from kubernetes.aio import client, config
from kubernetes.utils.quantity import parse_quantity

from shared.errors import Unavailable

log = structlog.get_logger(__name__)

CALL_SECONDS = 4.0
LIST_SECONDS = 15.0
WATCH_SLACK_SECONDS = 5.0
_PAGE_SIZE = 500
_SUCCESS = range(200, 300)
_UNAUTHORIZED, _NOT_FOUND = 401, 404
_FAILURES = (aiohttp.ClientError, OSError, msgspec.MsgspecError)
_CLOSING = aiohttp.ClientWSTimeout(ws_close=1.0)

ModelT = TypeVar("ModelT")
Query = Mapping[str, str] | Sequence[tuple[str, str]]


class Status(msgspec.Struct, frozen=True):
    """What Kubernetes says in place of an object: of an error, why."""

    code: int = 0
    """Of HTTP."""
    reason: str = ""
    """One word of Kubernetes' vocabulary; empty when it was not Kubernetes that answered."""
    message: str = ""

    @property
    def is_missing(self) -> bool:
        """Whether Kubernetes says that there is no such object. A proxy's 404 does not say it."""
        return self.code == _NOT_FOUND and self.reason == "NotFound"


class ClusterUnavailable(Unavailable):
    """Kubernetes gave no answer, or none that decides anything; the call may have had its effect."""

    def __init__(self, **context: object) -> None:
        super().__init__("The cluster is unavailable, try again shortly", retry_after_seconds=5, **context)


class StatusError(ClusterUnavailable):
    """Kubernetes answered with an error, which decides nothing unless the caller knows what it means here."""

    def __init__(self, status: Status) -> None:
        super().__init__(code=status.code, reason=status.reason)
        self.status = status


class Listing(msgspec.Struct, Generic[ModelT], frozen=True):
    """Every object of a list."""

    items: list[ModelT]
    resource_version: str
    """That the list is of, and that a watch goes on from."""


class WatchEvent(msgspec.Struct, Generic[ModelT], frozen=True):
    """One line of a watch."""

    type: str
    """ADDED, MODIFIED, DELETED or BOOKMARK."""
    object: ModelT
    """Of a bookmark, nothing but its resource version is of use."""


class _ListMeta(msgspec.Struct, frozen=True, rename="camel"):
    resource_version: str = ""
    following: str | None = msgspec.field(default=None, name="continue")


class _Page(msgspec.Struct, Generic[ModelT], frozen=True):
    metadata: _ListMeta = _ListMeta()
    items: list[ModelT] | None = None


class _Line(msgspec.Struct, frozen=True):
    type: str
    object: msgspec.Raw


class KubernetesApi:
    """One client of the Kubernetes API. Connecting is lazy: a service starts while the cluster is away.

    Every method raises ClusterUnavailable when no answer came, and StatusError for one that is an error. Credentials
    that were refused are read anew, once a call: exec plugins and tokens in files renew them. So is the cluster's
    certificate authority after a call that found no server it trusts.

    Args:
        kubeconfig: Path; None: the service account of the pod this runs in.
        max_connections: At once; more calls wait for one. 0: as many as there are calls.
        read_buffer_bytes: Of one answer, twice at most; a line of a watch fits into it.
    """

    def __init__(
        self,
        kubeconfig: str | None,
        *,
        max_connections: int = 100,
        read_buffer_bytes: int = 1 << 21,
    ) -> None:
        self._kubeconfig = kubeconfig
        self._max_connections = max_connections
        self._read_buffer_bytes = read_buffer_bytes
        self._client: Any = None
        self._retired: Any = None
        self._opening = asyncio.Lock()

    async def close(self) -> None:
        """Close its connections."""
        opened, self._client, self._retired = (self._client, self._retired), None, None
        for api in opened:
            if api is not None:
                await api.close()

    async def call(
        self,
        method: str,
        path: str,
        *,
        model: type[ModelT],
        query: Query = (),
        body: Any = None,
        seconds: float = CALL_SECONDS,
    ) -> ModelT:
        """One request and its answer. A PATCH is a merge patch.

        Args:
            method: Of HTTP.
            path: From /api or /apis on.
            model: Of the answer.
            query: Of the URL.
            body: Sent as JSON.
            seconds: For everything.

        Raises:
            StatusError: The answer is an error.
            ClusterUnavailable: There was no answer, or one that cannot be read; it may have had its effect.
        """
        with _reaching(method, path):
            async with asyncio.timeout(seconds):
                limits = aiohttp.ClientTimeout(total=seconds)
                response = await self._send(method, path, query, body, limits)
                return msgspec.json.decode(await response.read(), type=model)

    async def list_all(
        self,
        path: str,
        model: type[ModelT],
        *,
        query: Mapping[str, str] | None = None,
        seconds: float = LIST_SECONDS,
        page_size: int = _PAGE_SIZE,
    ) -> Listing[ModelT]:
        """Every object of a list, over all pages; raises as `call` does. `seconds` is for each page."""
        items: list[ModelT] = []
        asked = {**(query or {}), "limit": str(page_size)}
        page_model: Any = _Page[model]  # type: ignore[valid-type]
        while True:
            page = await self.call("GET", path, model=page_model, query=asked, seconds=seconds)
            items += page.items or []
            if not page.metadata.following:
                return Listing(items, page.metadata.resource_version)
            asked["continue"] = page.metadata.following

    async def watch(
        self,
        path: str,
        model: type[ModelT],
        *,
        resource_version: str,
        seconds: float,
        slack_seconds: float = WATCH_SLACK_SECONDS,
        query: Mapping[str, str] | None = None,
    ) -> AsyncGenerator[WatchEvent[ModelT], None]:
        """What happens to the objects of a list after it, bookmarks among it; ends after `seconds`.

        Args:
            path: Of the list.
            model: Of its objects.
            resource_version: Of the list, or of the last event.
            seconds: That the server is asked to watch for.
            slack_seconds: How much longer it may take: a connection that died unnoticed is given up then.
            query: Besides.

        Raises:
            StatusError: The answer is an error, or the watch was told one: 410 when the version is too old.
            ClusterUnavailable: The watch broke.
        """
        asked = {
            **(query or {}),
            "watch": "true",
            "allowWatchBookmarks": "true",
            "resourceVersion": resource_version,
            "timeoutSeconds": str(max(1, round(seconds))),
        }
        limits = aiohttp.ClientTimeout(total=seconds + slack_seconds)
        # aiohttp's error of a line that is too long is a ValueError
        with _reaching("WATCH", path, failures=(*_FAILURES, ValueError)):
            async with self._streaming(path, asked, limits, seconds + slack_seconds) as content:
                async for line in content:
                    yield _read_event(line, model)

    @asynccontextmanager
    async def stream(
        self, path: str, query: Query, *, idle_seconds: float, open_seconds: float = CALL_SECONDS
    ) -> AsyncIterator[AsyncIterator[bytes]]:
        """An answer piece by piece as it comes. No more is read than is taken; leaving the block closes the connection.

        Args:
            path: Of a GET.
            query: Of the URL.
            idle_seconds: Given up when nothing comes for so long.
            open_seconds: Until the answer begins.

        Raises:
            StatusError: The answer is an error.
            ClusterUnavailable: No answer; or, while it is read, the stream broke.
        """
        limits = aiohttp.ClientTimeout(sock_connect=open_seconds, sock_read=idle_seconds)
        with _reaching("GET", path):
            async with self._streaming(path, query, limits, open_seconds) as content:
                yield content.iter_any()

    @asynccontextmanager
    async def websocket(
        self, path: str, query: Query, *, protocol: str, seconds: float
    ) -> AsyncIterator[aiohttp.ClientWebSocketResponse]:
        """A WebSocket, for exec.

        Args:
            path: Of the subresource.
            query: Of the URL.
            protocol: Subprotocol.
            seconds: For everything, the block's body with it.

        Raises:
            StatusError: Kubernetes does not open it.
            ClusterUnavailable: No answer, or it broke.
        """
        with _reaching("WEBSOCKET", path):
            async with asyncio.timeout(seconds):
                api = await self._open()
                try:
                    async with await _websocket(api, path, query, protocol) as socket:
                        yield socket
                except aiohttp.WSServerHandshakeError as error:
                    if error.status == _UNAUTHORIZED:
                        await self._retire(api)
                    raise StatusError(Status(code=error.status, message=error.message)) from error

    @asynccontextmanager
    async def _streaming(
        self, path: str, query: Query, limits: aiohttp.ClientTimeout, open_seconds: float
    ) -> AsyncIterator[aiohttp.StreamReader]:
        async with asyncio.timeout(open_seconds):
            response = await self._send("GET", path, query, None, limits)
        try:
            yield response.response.content
        finally:
            _leave(response.response)

    async def _send(self, method: str, path: str, query: Query, body: Any, limits: aiohttp.ClientTimeout) -> Any:
        api = await self._open()
        try:
            response = await _request(api, method, path, query=query, body=body, limits=limits)
        except aiohttp.ClientSSLError:
            await self._retire(api)  # the cluster's authority may be another by now, and the next call reads it
            raise
        if response.status == _UNAUTHORIZED:
            # the call had no effect
            _leave(response.response)
            await self._retire(api)
            response = await _request(await self._open(), method, path, query=query, body=body, limits=limits)
        if response.status not in _SUCCESS:
            raise StatusError(_status_of(response.status, await response.read()))
        return response

    async def _open(self) -> Any:
        async with self._opening:
            if self._client is None:
                self._client = client.ApiClient(configuration=await self._configuration())
            return self._client

    async def _retire(self, api: Any) -> None:
        """Make the next call read the credentials anew.

        What still goes on with the old ones may end: they are closed when the next are retired.
        """
        async with self._opening:
            if api is not self._client:
                return  # another call was here before
            log.info("cluster_credentials_refused")
            earlier, self._retired, self._client = self._retired, api, None
        if earlier is not None:
            await earlier.close()

    async def _configuration(self) -> Any:
        settings: Any = client.Configuration()
        in_cluster: Any = config.load_incluster_config
        from_file: Any = config.load_kube_config
        try:
            if self._kubeconfig is None:
                in_cluster(client_configuration=settings)
            else:
                await from_file(config_file=self._kubeconfig, client_configuration=settings)
        except Exception as error:
            # the loader checks little: what a half-written file leads to may be any error
            raise ClusterUnavailable(cause=type(error).__name__) from error
        settings.connection_pool_maxsize = self._max_connections
        # the session would look for a proxy and for a netrc file at each call, each in a thread
        proxy = settings.proxy or proxy_of(settings.host)
        settings.client_session_kwargs = {"read_bufsize": self._read_buffer_bytes, "trust_env": False, "proxy": proxy}
        return settings


def proxy_of(url: str) -> str | None:
    """The proxy that this process' environment (`HTTPS_PROXY`, `NO_PROXY`) names for a server; None: there is none.

    One that is reached by TLS is left out: the client cannot go through it.
    """
    server = urlsplit(url)
    proxy = None if proxy_bypass(server.netloc) else getproxies().get(server.scheme)
    return proxy if proxy is not None and urlsplit(proxy).scheme == "http" else None


def quantity(text: str | None) -> float:
    """The number that a quantity ('500m', '1.5Gi', '1e3') means; 0 for None and for what is none."""
    try:
        return float(parse_quantity(text or "0"))  # type: ignore[no-untyped-call]
    except ValueError:
        return 0.0


@contextmanager
def _reaching(method: str, path: str, *, failures: tuple[type[Exception], ...] = _FAILURES) -> Iterator[None]:
    try:
        yield
    except failures as error:
        raise ClusterUnavailable(method=method, path=path, cause=type(error).__name__) from error


async def _request(api: Any, method: str, path: str, *, query: Query, body: Any, limits: aiohttp.ClientTimeout) -> Any:
    headers = {"Accept": "application/json"}
    if method == "PATCH":
        headers["Content-Type"] = "application/merge-patch+json"
    request = await api.param_serialize(
        method=method,
        resource_path=path,
        query_params=_pairs(query),
        header_params=headers,
        body=body,
        auth_settings=["BearerToken"],
    )
    return await api.call_api(*request, _request_timeout=limits)


def _leave(response: aiohttp.ClientResponse) -> None:
    """Close the connection of an answer that is not read to its end.

    At once: TLS would take leave of a server that goes on sending, beyond the end of the client.
    """
    if response.connection is not None and response.connection.transport is not None:
        response.connection.transport.abort()
    response.close()


async def _websocket(api: Any, path: str, query: Query, protocol: str) -> Any:
    _, url, headers, *_ = await api.param_serialize(
        method="GET", resource_path=path, header_params={}, auth_settings=["BearerToken"]
    )
    # the client makes its session with the first request
    session = api.rest_client.pool_manager or api.rest_client._create_pool_manager()  # noqa: SLF001 - has no public way
    api.rest_client.pool_manager = session
    url = f"{url}?{urlencode(_pairs(query))}"
    return session.ws_connect(url, headers=headers, protocols=(protocol,), timeout=_CLOSING)


def _pairs(query: Query) -> list[tuple[str, str]]:
    return list(query.items() if isinstance(query, Mapping) else query)


def _status_of(code: int, body: bytes) -> Status:
    try:
        status = msgspec.json.decode(body, type=Status)
    except msgspec.MsgspecError:
        return Status(code=code)
    return msgspec.structs.replace(status, code=code)


def _read_event(line: bytes, model: type[ModelT]) -> WatchEvent[ModelT]:
    event = msgspec.json.decode(line, type=_Line)
    if event.type == "ERROR":
        raise StatusError(msgspec.json.decode(event.object, type=Status))
    return WatchEvent(event.type, msgspec.json.decode(event.object, type=model))
