"""The only module that talks to Kubernetes: the pods, services and secrets of one namespace.

Every call has a deadline. A call that ended without an answer may have had its effect: creating is therefore looking,
then adopting or making, under names that are the same at every try.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any, TypeVar
from urllib.parse import urlencode
from uuid import UUID

import aiohttp
import msgspec
import structlog
from kubernetes.aio import client, config
from prometheus_client import Gauge

from services.jobs.adapters.exec_channel import PROTOCOL, Broken, ExecResult, NotRun, converse
from services.jobs.domain.manifests import MANAGED_BY, Manifest, owner_reference
from services.jobs.domain.pod import EPOCH_LABEL, JOB_LABEL, MAIN_CONTAINER, Meta, Pod
from services.jobs.domain.trouble import Node, PodEvent, newest, node_trouble
from shared.errors import Conflict, Unavailable

log = structlog.get_logger(__name__)

CALL_SECONDS = 4.0
_LIST_SECONDS = 15.0
_WATCH_SECONDS = 10
"""Length of one watch: a connection that died unnoticed is noticed within it and the slack below."""
_WATCH_SLACK_SECONDS = 5.0
_PAGE = 500
_SELECTOR = ",".join(f"{name}={value}" for name, value in MANAGED_BY.items())
_LOG_IDLE_SECONDS = 30.0
"""A container may be silent for long: a stream that is, is opened again, since its connection may have died."""
_LOG_BUFFER_BYTES = 1 << 16
"""Of one stream, twice at most: the client's default of 2 MB would be 4 GB for a thousand slow readers."""
_FIRST_TIME, _LAST_TIME = datetime(1971, 1, 1, tzinfo=UTC), datetime(2261, 1, 1, tzinfo=UTC)
_BAD_REQUEST, _UNAUTHORIZED, _FORBIDDEN, _NOT_FOUND, _CONFLICT, _GONE = 400, 401, 403, 404, 409, 410
_REFUSALS = frozenset({400, 422})
_NO_EXEC = frozenset({400, 404, 409, 422})
_CLOSING = aiohttp.ClientWSTimeout(ws_close=1.0)
KINDS = ("pods", "services", "secrets", "persistentvolumeclaims", "persistentvolumes")
_CLUSTER_WIDE = frozenset({"persistentvolumes", "nodes"})
_ATTACHMENTS = "/apis/storage.k8s.io/v1/volumeattachments"

_watch_contact = Gauge("gpudev_watch_contact_timestamp_seconds", "Last sign of life of the watch on pods")
ModelT = TypeVar("ModelT")


class ClusterUnavailable(Unavailable):
    """Kubernetes gave no answer, or none that decides anything; the call may have had its effect."""

    def __init__(self, **context: object) -> None:
        super().__init__("The cluster is unavailable, try again shortly", retry_after_seconds=5, **context)


class ClusterRefused(Conflict):
    """Kubernetes says that an object can never be made like this."""


class ClusterForbids(Conflict):
    """Admission, a quota or our own rights do not let an object be made now; that may change."""


class NameTaken(Conflict):
    """An object of our name is not ours, or is going away."""


class LogNotThere(Exception):
    """There is no such pod, or its container has not started."""


class ServicePort(msgspec.Struct, frozen=True, rename="camel"):
    name: str = ""
    port: int = 0
    node_port: int | None = None


class ServiceSpec(msgspec.Struct, frozen=True):
    type: str = ""
    selector: dict[str, str] = {}
    ports: list[ServicePort] = []


class Service(msgspec.Struct, frozen=True):
    metadata: Meta = Meta()
    spec: ServiceSpec = ServiceSpec()

    @property
    def node_ports(self) -> dict[str, int | None]:
        """By the names of the ports."""
        return {port.name: port.node_port for port in self.spec.ports}

    def leads_as(self, manifest: Manifest) -> bool:
        """Whether it still leads where the one of this manifest does."""
        wanted = manifest["spec"]
        ports = [(port.name, port.port) for port in self.spec.ports]
        return (self.spec.type, self.spec.selector, ports) == (
            wanted["type"],
            wanted["selector"],
            [(port["name"], port["port"]) for port in wanted["ports"]],
        )


class Object(msgspec.Struct, frozen=True):
    """Any object, of which only the metadata is of interest."""

    metadata: Meta = Meta()


class _List(msgspec.Struct, frozen=True):
    metadata: dict[str, Any] = {}
    items: list[Object] = []


class _Event(msgspec.Struct, frozen=True):
    type: str
    object: msgspec.Raw


class _AttachmentSource(msgspec.Struct, frozen=True, rename="camel"):
    persistent_volume_name: str | None = None


class _AttachmentSpec(msgspec.Struct, frozen=True):
    source: _AttachmentSource = _AttachmentSource()


class _Attachment(msgspec.Struct, frozen=True):
    spec: _AttachmentSpec = _AttachmentSpec()


class _Attachments(msgspec.Struct, frozen=True):
    metadata: dict[str, Any] = {}
    items: list[_Attachment] = []


class _PodEvents(msgspec.Struct, frozen=True):
    items: list[PodEvent] = []


class _Status(msgspec.Struct, frozen=True):
    code: int = 0
    reason: str = ""
    message: str = ""


class _Failed(Exception):
    def __init__(self, status: _Status) -> None:
        super().__init__(status.code)
        self.status = status


class Cluster:
    """Objects of the jobs in one namespace.

    Args:
        kubeconfig: Path; None: the service account of the pod this runs in.
        namespace: Where the jobs' objects live.
    """

    def __init__(self, *, kubeconfig: str | None, namespace: str) -> None:
        self._kubeconfig = kubeconfig
        self._namespace = namespace
        self._client: Any = None
        self._log_client: Any = None
        self._retired: list[Any] = []
        self._opening = asyncio.Lock()

    async def close(self) -> None:
        """Close its connections."""
        for opened in (self._client, self._log_client, *self._retired):
            if opened is not None:
                await opened.close()
        self._client = self._log_client = None
        self._retired = []

    async def find_pod(self, name: str) -> Pod | None:
        """The pod as it is now, by a live look; None when there is none."""
        try:
            return await self._call("GET", "pods", name, model=Pod)
        except _Failed as failed:
            if failed.status.code == _NOT_FOUND and failed.status.reason == "NotFound":
                return None
            raise _unavailable(failed) from failed

    async def find_node_trouble(self, name: str) -> str | None:
        """Why a node's pods were deleted, for a person, by a live look; None: it is well, or we may not look.

        Raises:
            ClusterUnavailable: There was no answer.
        """
        try:
            node = await self._call("GET", "nodes", name, model=Node)
        except _Failed as failed:
            if failed.status.code == _FORBIDDEN:
                return None
            if failed.status.code == _NOT_FOUND and failed.status.reason == "NotFound":
                return node_trouble(name, None)
            raise _unavailable(failed) from failed
        return node_trouble(name, node)

    async def find_newest_event(self, pod_uid: str) -> PodEvent | None:
        """What the cluster said last of a pod; None: nothing, or we may not look.

        Raises:
            ClusterUnavailable: There was no answer.
        """
        query = {"fieldSelector": f"involvedObject.uid={pod_uid}"}
        try:
            events = await self._call("GET", "events", query=query, model=_PodEvents)
        except _Failed as failed:
            if failed.status.code == _FORBIDDEN:
                return None
            raise _unavailable(failed) from failed
        return newest(events.items)

    async def ensure_pod(self, manifest: Manifest) -> Pod:
        """Make the pod, or adopt the one that an earlier try made.

        Raises:
            ClusterRefused: It can never be made like this.
            ClusterForbids: It may not be made now.
            NameTaken: There is one of its name that is not of this job and lease, or is going away.
            ClusterUnavailable: No answer; it may have been made.
        """
        return await self._ensure("pods", manifest, Pod)

    async def ensure_secret(self, manifest: Manifest) -> None:
        """Make the Secret, or adopt it; raises as `ensure_pod`."""
        await self._ensure("secrets", manifest, Object)

    async def ensure_disk(self, volume: Manifest, claim: Manifest) -> None:
        """Make a disk's persistent volume and its claim, or adopt them; raises as `ensure_pod`."""
        await self._ensure("persistentvolumes", volume, Object)
        await self._ensure("persistentvolumeclaims", claim, Object)

    async def release_disk(self, name: str) -> bool:
        """Delete a disk's claim and persistent volume of this name, whose pod is gone. Idempotent.

        Returns:
            Whether both are gone and the volume is detached from every node: only then may another job have the disk.
        """
        for kind in ("persistentvolumeclaims", "persistentvolumes"):
            found = await self.find_object(kind, name)
            if found is not None:
                await self._delete(kind, name, found.uid)
                if await self.find_object(kind, name) is not None:
                    return False  # protected until the cluster knows that no pod has it
        return not await self._is_attached(name)

    async def _is_attached(self, volume_name: str) -> bool:
        query = {"limit": str(_PAGE)}
        while True:
            try:
                page = await self._call("GET", _ATTACHMENTS, query=query, model=_Attachments, seconds=_LIST_SECONDS)
            except _Failed as failed:
                if failed.status.code == _NOT_FOUND:
                    return False  # a cluster that knows no attachments attaches nothing
                raise _unavailable(failed) from failed
            if any(item.spec.source.persistent_volume_name == volume_name for item in page.items):
                return True
            if not page.metadata.get("continue"):
                return False
            query["continue"] = page.metadata["continue"]

    async def ensure_service(self, manifest: Manifest) -> dict[str, int | None]:
        """Make the Service, or adopt it; its node ports by their names. Raises as `ensure_pod`."""
        return (await self._ensure("services", manifest, Service)).node_ports

    async def find_service(self, name: str) -> Service | None:
        """The Service as it is now; None when there is none."""
        try:
            return await self._call("GET", "services", name, model=Service)
        except _Failed as failed:
            if failed.status.code == _NOT_FOUND:
                return None
            raise _unavailable(failed) from failed

    async def tie_secret(self, name: str, pod_uid: str) -> None:
        """Let the Secret die with the pod of the same name. Idempotent."""
        body = {"metadata": {"ownerReferences": [owner_reference(name, pod_uid)]}}
        try:
            await self._call("PATCH", "secrets", name, body=body, model=Object)
        except _Failed as failed:
            raise _unavailable(failed) from failed

    async def exec_in_pod(self, name: str, argv: list[str], *, stdin: bytes | None, seconds: float) -> ExecResult:
        """Run a program in the pod's main container. As idempotent as the program; it may go on after an error here.

        Args:
            name: Of the pod; names are never used twice, so it is the pod that was meant or none.
            argv: Program and arguments; nothing that a user gave.
            stdin: Its standard input, sent with its length on a line before it; None: none. Never logged.
            seconds: For everything.

        Raises:
            ClusterRefused: The pod is not there, or its container does not run or cannot run the program.
            ClusterUnavailable: No answer; it may have run.
        """
        query = [("container", MAIN_CONTAINER), ("stdout", "true"), ("stderr", "true")]
        query += [("stdin", "true")] if stdin is not None else []
        query += [("command", argument) for argument in argv]
        try:
            async with asyncio.timeout(seconds), await self._open_socket(name, query) as socket:
                return await converse(socket, stdin)
        except NotRun as error:
            raise ClusterRefused(f"The program could not be run: {error}") from error
        except aiohttp.WSServerHandshakeError as error:
            if error.status == _UNAUTHORIZED:
                await self._retire(self._client)
            if error.status in _NO_EXEC:
                raise ClusterRefused("The pod is not there or does not run") from error
            raise ClusterUnavailable(code=error.status) from error
        except (aiohttp.ClientError, OSError, TimeoutError, Broken) as error:
            raise ClusterUnavailable(method="EXEC", cause=type(error).__name__) from error

    async def _open_socket(self, name: str, query: list[tuple[str, str]]) -> Any:
        api = await self._open()
        path = f"/api/v1/namespaces/{self._namespace}/pods/{name}/exec"
        _, url, headers, *_ = await api.param_serialize(
            method="GET", resource_path=path, header_params={}, auth_settings=["BearerToken"]
        )
        session = api.rest_client.pool_manager or api.rest_client._create_pool_manager()  # noqa: SLF001 - made lazily
        api.rest_client.pool_manager = session
        return session.ws_connect(f"{url}?{urlencode(query)}", headers=headers, protocols=(PROTOCOL,), timeout=_CLOSING)

    async def delete_pod(self, name: str, uid: str) -> None:
        """Ask for the deletion of exactly this pod, with its own grace period. Idempotent; it may live on for long."""
        await self._delete("pods", name, uid)

    @asynccontextmanager
    async def open_log(
        self, name: str, *, follow: bool = False, tail: int | None = None, since: datetime | None = None
    ) -> AsyncIterator[AsyncIterator[bytes]]:
        """The log of a pod's main container with the time of each line, piece by piece as it comes.

        No more is read than is taken; leaving the block closes the connection.

        Args:
            name: The pod's.
            follow: Go on until the container ends. Given up when nothing comes for 30 s, else for 4 s.
            tail: The last lines only; None: all.
            since: To the second: a little more may come. None: from the beginning.

        Raises:
            LogNotThere: No pod, or no container yet.
            ClusterUnavailable: No answer, or the stream broke; also while it is read.
        """
        query = {"container": MAIN_CONTAINER, "timestamps": "true", "follow": str(follow).lower()}
        if tail is not None:
            query["tailLines"] = str(tail)
        if since is not None:
            query["sinceTime"] = f"{_within_kubernetes(since):%Y-%m-%dT%H:%M:%SZ}"
        try:
            response = await self._send_log_request(name, query, _LOG_IDLE_SECONDS if follow else CALL_SECONDS)
            try:
                yield response.response.content.iter_any()
            finally:
                response.response.close()
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise ClusterUnavailable(kind="log", cause=type(error).__name__) from error

    async def _send_log_request(self, name: str, query: dict[str, str], idle_seconds: float) -> Any:
        limits = aiohttp.ClientTimeout(sock_connect=CALL_SECONDS, sock_read=idle_seconds)
        async with asyncio.timeout(CALL_SECONDS):
            response = await self._send("GET", "pods", f"{name}/log", query, None, limits, self._open_log_client)
            try:
                await _raise_for_status(response)
            except _Failed as failed:
                if _says_no_log(failed.status):
                    raise LogNotThere(failed.status.message) from failed
                raise _unavailable(failed) from failed
            return response

    async def delete_object(self, kind: str, name: str, uid: str | None = None) -> None:
        """Delete an object if it is there, and, with `uid`, if it is still that one."""
        await self._delete(kind, name, uid)

    async def find_object(self, kind: str, name: str) -> Meta | None:
        """Metadata of an object by a live look; None when there is none."""
        try:
            return (await self._call("GET", kind, name, model=Object)).metadata
        except _Failed as failed:
            if failed.status.code == _NOT_FOUND:
                return None
            raise _unavailable(failed) from failed

    async def list_objects(self, kind: str) -> tuple[list[Meta], str]:
        """Metadata of all of ours, and the resource version of the list."""
        found: list[Meta] = []
        query = {"labelSelector": _SELECTOR, "limit": str(_PAGE)}
        while True:
            try:
                page = await self._call("GET", kind, query=query, model=_List, seconds=_LIST_SECONDS)
            except _Failed as failed:
                raise _unavailable(failed) from failed
            found += [item.metadata for item in page.items]
            if not page.metadata.get("continue"):
                return found, str(page.metadata.get("resourceVersion", ""))
            query["continue"] = page.metadata["continue"]

    async def watch_pods(self, on_change: Callable[[UUID], None]) -> None:
        """Call `on_change` with the job of each pod that changed, until cancelled; also with all after a gap."""
        version: str | None = None
        while True:
            try:
                if version is None:
                    pods, version = await self.list_objects("pods")
                    for pod in pods:
                        _tell(pod, on_change)
                version = await self._watch_once(version, on_change)
            except (_Failed, ClusterUnavailable) as error:
                log.warning("watch_interrupted", error=type(error).__name__, code=_code(error))
                version = None
                await asyncio.sleep(0.5)

    async def _watch_once(self, version: str, on_change: Callable[[UUID], None]) -> str | None:
        query = {
            "watch": "true",
            "labelSelector": _SELECTOR,
            "resourceVersion": version,
            "allowWatchBookmarks": "true",
            "timeoutSeconds": str(_WATCH_SECONDS),
        }
        try:
            async with asyncio.timeout(_WATCH_SECONDS + _WATCH_SLACK_SECONDS):
                seconds = _WATCH_SECONDS + _WATCH_SLACK_SECONDS
                response = await self._send("GET", "pods", None, query, None, aiohttp.ClientTimeout(total=seconds))
                try:
                    await _raise_for_status(response)
                    async for line in response.response.content:
                        _watch_contact.set_to_current_time()
                        version = _read_event(line, on_change)
                finally:
                    response.response.close()
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError, msgspec.MsgspecError) as error:
            raise ClusterUnavailable(cause=type(error).__name__) from error
        _watch_contact.set_to_current_time()
        return version

    async def _ensure(self, kind: str, manifest: Manifest, model: type[ModelT]) -> ModelT:
        try:
            return await self._call("POST", kind, body=manifest, model=model)
        except _Failed as failed:
            if failed.status.code in _REFUSALS:
                raise ClusterRefused(failed.status.message) from failed
            if failed.status.code == _FORBIDDEN:
                raise ClusterForbids(failed.status.message) from failed
            if failed.status.code != _CONFLICT or failed.status.reason != "AlreadyExists":
                raise _unavailable(failed) from failed
        return await self._adopt(kind, manifest, model)

    async def _adopt(self, kind: str, manifest: Manifest, model: type[ModelT]) -> ModelT:
        name, wanted = manifest["metadata"]["name"], manifest["metadata"]["labels"]
        try:
            found = await self._call("GET", kind, name, model=model)
        except _Failed as failed:
            raise _unavailable(failed) from failed
        meta: Meta = found.metadata  # type: ignore[attr-defined]
        ours = all(meta.labels.get(label) == wanted[label] for label in (JOB_LABEL, EPOCH_LABEL))
        if not ours or meta.deletion_timestamp is not None:
            raise NameTaken(f"An object named {name} is in the way")
        log.info("object_adopted", kind=kind, name=name)
        return found

    async def _delete(self, kind: str, name: str, uid: str | None) -> None:
        body: Manifest = {"apiVersion": "v1", "kind": "DeleteOptions"}
        if uid is not None:
            body["preconditions"] = {"uid": uid}
        try:
            await self._call("DELETE", kind, name, body=body, model=msgspec.Raw)
        except _Failed as failed:
            # not found, or another object of this name: the one that was meant is gone
            if failed.status.code not in {_NOT_FOUND, _CONFLICT}:
                raise _unavailable(failed) from failed

    async def _call(
        self,
        method: str,
        kind: str,
        name: str | None = None,
        *,
        model: type[ModelT],
        query: dict[str, str] | None = None,
        body: Manifest | None = None,
        seconds: float = CALL_SECONDS,
    ) -> ModelT:
        try:
            async with asyncio.timeout(seconds):
                limits = aiohttp.ClientTimeout(total=seconds)
                response = await self._send(method, kind, name, query, body, limits)
                await _raise_for_status(response)
                return msgspec.json.decode(await response.read(), type=model)
        except (aiohttp.ClientError, OSError, TimeoutError, msgspec.DecodeError) as error:
            raise ClusterUnavailable(method=method, kind=kind, cause=type(error).__name__) from error

    async def _send(  # noqa: PLR0917 - private, and each is something else
        self,
        method: str,
        kind: str,
        name: str | None,
        query: Any,
        body: Manifest | None,
        limits: Any,
        opened: Any = None,
    ) -> Any:
        for is_last in (False, True):
            api = await (opened or self._open)()
            response = await self._send_once(api, method, kind, name, query, body, limits)
            if response.status != _UNAUTHORIZED or is_last:
                break
            # credentials expire (exec plugins, tokens in files): they are read again, and the call had no effect
            response.response.close()
            await self._retire(api)
        return response

    async def _send_once(  # noqa: PLR0917 - private, and each is something else
        self, api: Any, method: str, kind: str, name: str | None, query: Any, body: Manifest | None, limits: Any
    ) -> Any:
        path = self._path(kind) + (f"/{name}" if name else "")
        headers = {"Accept": "application/json"}
        if method == "PATCH":
            headers["Content-Type"] = "application/merge-patch+json"
        request = await api.param_serialize(
            method=method, resource_path=path, query_params=list((query or {}).items()), header_params=headers,
            body=body, auth_settings=["BearerToken"],
        )  # fmt: skip
        return await api.call_api(*request, _request_timeout=limits)

    def _path(self, kind: str) -> str:
        if kind.startswith("/"):
            return kind
        return f"/api/v1/{kind}" if kind in _CLUSTER_WIDE else f"/api/v1/namespaces/{self._namespace}/{kind}"

    async def _open(self) -> Any:
        async with self._opening:
            if self._client is None:
                self._client = client.ApiClient(configuration=await self._configuration())
            return self._client

    async def _open_log_client(self) -> Any:
        """Its own: streams that are open for hours must leave the other calls their connections."""
        async with self._opening:
            if self._log_client is None:
                configuration = await self._configuration()
                configuration.connection_pool_maxsize = 0  # as many as there are readers
                configuration.client_session_kwargs = {"read_bufsize": _LOG_BUFFER_BYTES}
                self._log_client = client.ApiClient(configuration=configuration)
            return self._log_client

    async def _retire(self, api: Any) -> None:
        """Make the next call read the credentials anew.

        What still goes on with the old ones may end: they are closed with the next that are retired.
        """
        async with self._opening:
            if api is None or api not in {self._client, self._log_client}:
                return  # another call was here before
            log.info("cluster_credentials_refused")
            for retired in self._retired:
                await retired.close()
            self._retired = [api]
            self._client = None if api is self._client else self._client
            self._log_client = None if api is self._log_client else self._log_client

    async def _configuration(self) -> Any:
        settings = client.Configuration()
        in_cluster: Any = config.load_incluster_config
        from_file: Any = config.load_kube_config
        try:
            if self._kubeconfig is None:
                in_cluster(client_configuration=settings)
            else:
                await from_file(config_file=self._kubeconfig, client_configuration=settings)
        except (config.ConfigException, OSError) as error:
            raise ClusterUnavailable(cause=type(error).__name__) from error
        return settings


def _says_no_log(status: _Status) -> bool:
    """No pod; or the kubelet says that its container has not started, and not that the request is wrong."""
    waiting = status.code == _BAD_REQUEST and "container" in status.message.lower()
    return status.code == _NOT_FOUND or waiting


def _within_kubernetes(since: datetime) -> datetime:
    """A time that Kubernetes can read: there are no logs outside of them."""
    return min(max(since, _FIRST_TIME), _LAST_TIME).astimezone(UTC)


def _read_event(line: bytes, on_change: Callable[[UUID], None]) -> str:
    event = msgspec.json.decode(line, type=_Event)
    if event.type == "ERROR":
        raise _Failed(msgspec.json.decode(event.object, type=_Status))
    meta = msgspec.json.decode(event.object, type=Object).metadata
    if event.type != "BOOKMARK":
        _tell(meta, on_change)
    return meta.resource_version


def _tell(meta: Meta, on_change: Callable[[UUID], None]) -> None:
    job_id = job_of(meta)
    if job_id is not None:
        on_change(job_id)


def job_of(meta: Meta) -> UUID | None:
    """The job that an object's label names; None when it names none."""
    try:
        return UUID(meta.labels.get(JOB_LABEL, ""))
    except ValueError:
        return None


async def _raise_for_status(response: Any) -> None:
    if response.status < 300:  # noqa: PLR2004 - success, RFC 9110 section 15.3
        return
    raw = await response.read()
    try:
        status = msgspec.json.decode(raw, type=_Status)
    except msgspec.DecodeError:
        status = _Status()
    raise _Failed(msgspec.structs.replace(status, code=response.status))


def _unavailable(failed: _Failed) -> ClusterUnavailable:
    return ClusterUnavailable(code=failed.status.code, reason=failed.status.reason)


def _code(error: Exception) -> int | None:
    return error.status.code if isinstance(error, _Failed) else None
