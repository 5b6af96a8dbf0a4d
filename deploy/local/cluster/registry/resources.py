"""The kinds of object that are served, and what can be selected on."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from deploy.local.cluster.machinery.objects import Object

_ALL_VERBS = ("create", "delete", "deletecollection", "get", "list", "patch", "update", "watch")


@dataclass(frozen=True, slots=True)
class Resource:
    """One kind of object under /api/v1, or of another group under /apis."""

    plural: str
    singular: str
    kind: str
    namespaced: bool
    short_names: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    subresources: tuple[str, ...] = ()
    """Those that are read and written as the whole object: status, finalize."""
    fields: frozenset[str] = frozenset()
    """Selectable fields beyond metadata.name and metadata.namespace."""
    returns_deleted: bool = False
    """Whether DELETE answers with the object and not with a Status."""
    api_version: str = "v1"
    verbs: tuple[str, ...] = _ALL_VERBS

    @property
    def selectable(self) -> frozenset[str]:
        """All field labels that a fieldSelector may name."""
        common = {"metadata.name", "metadata.namespace"} if self.namespaced else {"metadata.name"}
        return self.fields | common


_EVENT_FIELDS = frozenset(
    {f"involvedObject.{name}" for name in ("kind", "namespace", "name", "uid", "apiVersion", "resourceVersion")}
    | {"reason", "type", "source", "involvedObject.fieldPath", "reportingComponent"}
)
_POD_FIELDS = frozenset(
    {"spec.nodeName", "spec.restartPolicy", "spec.schedulerName", "spec.serviceAccountName", "status.phase"}
    | {"status.podIP", "status.nominatedNodeName"}
)

RESOURCES: Mapping[str, Resource] = {
    resource.plural: resource
    for resource in (
        Resource("configmaps", "configmap", "ConfigMap", True, ("cm",)),
        Resource("endpoints", "endpoints", "Endpoints", True, ("ep",)),
        Resource("events", "event", "Event", True, ("ev",), fields=_EVENT_FIELDS),
        Resource(
            "namespaces",
            "namespace",
            "Namespace",
            False,
            ("ns",),
            subresources=("status", "finalize"),
            fields=frozenset({"status.phase"}),
        ),
        Resource(
            "nodes",
            "node",
            "Node",
            False,
            ("no",),
            subresources=("status",),
            fields=frozenset({"spec.unschedulable"}),
        ),
        Resource(
            "persistentvolumeclaims",
            "persistentvolumeclaim",
            "PersistentVolumeClaim",
            True,
            ("pvc",),
            subresources=("status",),
            returns_deleted=True,
        ),
        Resource(
            "persistentvolumes",
            "persistentvolume",
            "PersistentVolume",
            False,
            ("pv",),
            subresources=("status",),
            returns_deleted=True,
        ),
        Resource(
            "pods",
            "pod",
            "Pod",
            True,
            ("po",),
            ("all",),
            subresources=("status",),
            fields=_POD_FIELDS,
            returns_deleted=True,
        ),
        Resource(
            "ingresses",
            "ingress",
            "Ingress",
            True,
            ("ing",),
            subresources=("status",),
            api_version="networking.k8s.io/v1",
        ),
        Resource("secrets", "secret", "Secret", True, fields=frozenset({"type"})),
        Resource("serviceaccounts", "serviceaccount", "ServiceAccount", True, ("sa",), returns_deleted=True),
        Resource(
            "services",
            "service",
            "Service",
            True,
            ("svc",),
            ("all",),
            subresources=("status",),
            fields=frozenset({"spec.clusterIP", "spec.type"}),
            returns_deleted=True,
        ),
    )
}


def path_of(api_version: str) -> str:
    """Where the kinds of a group and version are served."""
    return f"/apis/{api_version}" if "/" in api_version else f"/api/{api_version}"


API_VERSIONS = tuple(dict.fromkeys(resource.api_version for resource in RESOURCES.values()))
BY_KIND: Mapping[tuple[str, str], Resource] = {(r.api_version, r.kind): r for r in RESOURCES.values()}


def selectable_fields(resource: Resource, value: Object) -> dict[str, str]:
    """The values of an object's selectable fields; an unset one is left out, which selects as empty."""
    return {path: found for path in resource.selectable if (found := _FIELD_READERS.get(path, _dotted)(value, path))}


def _dotted(value: Object, path: str) -> str:
    current: object = value
    for part in path.split("."):
        current = current.get(part) if isinstance(current, dict) else None
    return "" if current is None else str(current)


def _unschedulable(value: Object, _path: str) -> str:
    return "true" if value.get("spec", {}).get("unschedulable") else "false"


def _source(value: Object, _path: str) -> str:
    return str(value.get("source", {}).get("component") or value.get("reportingComponent", ""))


_FIELD_READERS: Mapping[str, Callable[[Object, str], str]] = {
    "spec.unschedulable": _unschedulable,
    "source": _source,
}
