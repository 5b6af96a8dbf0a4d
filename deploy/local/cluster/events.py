"""The event recorder: what `kubectl describe` shows below an object."""

import uuid
from collections import OrderedDict

from deploy.local.cluster.machinery.objects import Object, now, reference, timestamp
from deploy.local.cluster.registry.registry import Registry, Target
from deploy.local.cluster.registry.resources import RESOURCES

_REMEMBERED = 2048


class EventRecorder:
    """Writes events; one that repeats raises the count of the first."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._names: OrderedDict[tuple[str, ...], str] = OrderedDict()

    def record(
        self,
        involved: Object,
        kind: str,
        reason: str,
        message: str,
        *,
        component: str,
        host: str = "",
        field_path: str = "",
    ) -> None:
        """Adds an event about an object; `kind` is Normal or Warning. Does nothing in a namespace that ends."""
        namespace = involved["metadata"].get("namespace") or "default"
        home = self._registry.store.get("namespaces", "", namespace)
        if home is None or home.value["status"]["phase"] == "Terminating":
            return
        key = (involved["metadata"]["uid"], kind, reason, message, component, host, field_path)
        known = self._names.get(key)
        if known is not None and self._repeat(namespace, known):
            return
        self._names[key] = self._create(namespace, involved, kind, reason, message, component, host, field_path)
        if len(self._names) > _REMEMBERED:
            self._names.popitem(last=False)

    def _repeat(self, namespace: str, name: str) -> bool:
        def count(event: Object) -> None:
            event["count"] = event.get("count", 1) + 1
            event["lastTimestamp"] = timestamp(now())

        return self._registry.modify(Target(RESOURCES["events"], namespace, name), count) is not None

    def _create(  # noqa: PLR0917  the fields of one event
        self,
        namespace: str,
        involved: Object,
        kind: str,
        reason: str,
        message: str,
        component: str,
        host: str,
        field_path: str,
    ) -> str:
        moment = timestamp(now())
        name = f"{involved['metadata']['name']}.{uuid.uuid4().hex[:16]}"
        about = reference(involved)
        if field_path:
            about["fieldPath"] = field_path
        event = {
            "metadata": {"name": name, "namespace": namespace},
            "involvedObject": about,
            "type": kind,
            "reason": reason,
            "message": message,
            "source": {"component": component, **({"host": host} if host else {})},
            "firstTimestamp": moment,
            "lastTimestamp": moment,
            "count": 1,
            "reportingComponent": "",
            "reportingInstance": "",
        }
        self._registry.create(RESOURCES["events"], namespace, event)
        return name
