"""What is the same for objects of every kind: find, list, make or adopt, delete."""

from typing import Any, TypeVar

import msgspec
import structlog

from services.jobs.domain.manifests import Manifest
from services.jobs.domain.pod import Meta
from shared.contracts.labels import EPOCH_LABEL, JOB_LABEL, MANAGED_BY
from shared.errors import Conflict
from shared.kubernetes import CALL_SECONDS, KubernetesApi, Listing, StatusError

log = structlog.get_logger(__name__)

FORBIDDEN, NOT_FOUND = 403, 404
_CONFLICT = 409
_REFUSALS = frozenset({400, 422})
SELECTOR = ",".join(f"{name}={value}" for name, value in MANAGED_BY.items())
KINDS = ("pods", "services", "secrets", "persistentvolumeclaims", "persistentvolumes", "ingresses")
_GROUPS = {"ingresses": "/apis/networking.k8s.io/v1"}
"""Of kinds that are not in the core group."""
_CLUSTER_WIDE = frozenset({"persistentvolumes", "nodes"})
_LOG_BUFFER_BYTES = 1 << 16
"""Of one stream, twice at most: the client's default of 2 MB would be 4 GB for a thousand slow readers."""

ModelT = TypeVar("ModelT")


class ClusterRefused(Conflict):
    """Kubernetes says that an object can never be made like this."""


class ClusterForbids(Conflict):
    """Admission, a quota or our own rights do not let an object be made now; that may change."""


class NameTaken(Conflict):
    """An object of our name is not ours, or is going away."""


class Object(msgspec.Struct, frozen=True):
    """Any object, of which only the metadata is of interest."""

    metadata: Meta = Meta()


class Objects:
    """Objects of the jobs in one namespace.

    Args:
        kubeconfig: Path; None: the service account of the pod this runs in.
        namespace: Where the jobs' objects live.
    """

    def __init__(self, *, kubeconfig: str | None, namespace: str) -> None:
        self._namespace = namespace
        self._api = KubernetesApi(kubeconfig)
        # logs have connections of their own, as many as there are readers: streams that are open for hours must leave
        # the other calls theirs
        self._log_api = KubernetesApi(kubeconfig, max_connections=0, read_buffer_bytes=_LOG_BUFFER_BYTES)

    async def close(self) -> None:
        """Close its connections."""
        await self._api.close()
        await self._log_api.close()

    async def find_object(self, kind: str, name: str) -> Meta | None:
        """Metadata of an object by a live look; None when there is none."""
        found = await self._find(kind, name, Object)
        return None if found is None else found.metadata

    async def list_objects(self, kind: str) -> tuple[list[Meta], str]:
        """Metadata of all of ours, and the resource version of the list."""
        found = await self._list(self._path(kind), Object, {"labelSelector": SELECTOR})
        return [item.metadata for item in found.items], found.resource_version

    async def delete_object(self, kind: str, name: str, uid: str | None = None) -> None:
        """Ask for the deletion of an object, with `uid` of exactly that one. Idempotent; it may live on for long."""
        body: Manifest = {"apiVersion": "v1", "kind": "DeleteOptions"}
        if uid is not None:
            body["preconditions"] = {"uid": uid}
        try:
            await self._call("DELETE", kind, name, body=body, model=msgspec.Raw)
        except StatusError as error:
            # not found, or another object of this name: the one that was meant is gone
            if error.status.code not in {NOT_FOUND, _CONFLICT}:
                raise

    async def _find(self, kind: str, name: str, model: type[ModelT]) -> ModelT | None:
        try:
            return await self._call("GET", kind, name, model=model)
        except StatusError as error:
            if error.status.is_missing:
                return None
            raise

    async def _ensure(self, kind: str, manifest: Manifest, model: type[ModelT]) -> ModelT:
        try:
            return await self._call("POST", kind, body=manifest, model=model)
        except StatusError as error:
            if error.status.code in _REFUSALS:
                raise ClusterRefused(error.status.message) from error
            if error.status.code == FORBIDDEN:
                raise ClusterForbids(error.status.message) from error
            if error.status.code != _CONFLICT or error.status.reason != "AlreadyExists":
                raise
        return await self._adopt(kind, manifest, model)

    async def _adopt(self, kind: str, manifest: Manifest, model: type[ModelT]) -> ModelT:
        name, wanted = manifest["metadata"]["name"], manifest["metadata"]["labels"]
        found = await self._call("GET", kind, name, model=model)
        meta: Meta = found.metadata  # type: ignore[attr-defined]
        ours = all(meta.labels.get(label) == wanted[label] for label in (JOB_LABEL, EPOCH_LABEL))
        if not ours or meta.deletion_timestamp is not None:
            raise NameTaken(f"An object named {name} is in the way")
        log.info("object_adopted", kind=kind, name=name)
        return found

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
        path = self._path(kind, name)
        return await self._api.call(method, path, model=model, query=query or {}, body=body, seconds=seconds)

    async def _list(self, path: str, model: type[ModelT], query: dict[str, str] | None = None) -> Listing[ModelT]:
        return await self._api.list_all(path, model, query=query)

    def _path(self, kind: str, *names: Any) -> str:
        within = "" if kind in _CLUSTER_WIDE else f"/namespaces/{self._namespace}"
        return "/".join(
            [f"{_GROUPS.get(kind, '/api/v1')}{within}/{kind}", *(name for name in names if name is not None)]
        )
