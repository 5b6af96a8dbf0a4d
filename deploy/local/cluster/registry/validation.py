"""Rules of every kind: metadata, and the smaller kinds; pods have a module of their own."""

import base64
import binascii
from collections.abc import Callable

from deploy.local.cluster.machinery import quantity
from deploy.local.cluster.machinery.errors import Cause, Causes
from deploy.local.cluster.machinery.objects import Object
from deploy.local.cluster.registry import names
from deploy.local.cluster.registry.pod_validation import validate_pod, validate_pod_update

_HIGHEST_PORT = 65535
_SECRET_BYTES = 1024 * 1024
_EFFECTS = ["NoSchedule", "PreferNoSchedule", "NoExecute"]
_SERVICE_TYPES = ["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"]
NODE_PORTS = range(30000, 32768)


def validate(resource: str, value: Object) -> list[Cause]:
    """What is wrong with a new object; empty when nothing is."""
    causes = Causes()
    _metadata(causes, resource, value["metadata"])
    rule = _RULES.get(resource)
    if rule is not None:
        rule(causes, value)
    return causes.found


def validate_update(resource: str, new: Object, old: Object) -> list[Cause]:
    """What is wrong with a change from `old` to `new`."""
    causes = Causes()
    if resource == "pods":
        validate_pod_update(causes, new, old)
    if resource in {"secrets", "configmaps"}:
        _immutable(causes, new, old)
    if resource == "secrets" and new.get("type") != old.get("type"):
        causes.invalid("type", new.get("type"), "field is immutable")
    if resource == "services":
        _cluster_ip_kept(causes, new["spec"], old["spec"])
    return causes.found + validate(resource, new)


def _metadata(causes: Causes, resource: str, metadata: Object) -> None:
    name = metadata.get("name", "")
    if not name:
        causes.required("metadata.name", "name or generateName is required")
    elif (problem := names.name_problem(resource, name)) is not None:
        causes.invalid("metadata.name", name, problem)
    for key, value in (metadata.get("labels") or {}).items():
        if problem := names.qualified_name_problem(key):
            causes.invalid("metadata.labels", key, problem)
        if problem := names.label_value_problem(value):
            causes.invalid("metadata.labels", value, problem)
    for key in metadata.get("annotations") or {}:
        if problem := names.qualified_name_problem(key.lower()):
            causes.invalid("metadata.annotations", key, problem)
    _owners(causes, metadata)


def _owners(causes: Causes, metadata: Object) -> None:
    for i, owner in enumerate(metadata.get("ownerReferences") or []):
        for field in ("apiVersion", "kind", "name", "uid"):
            if not owner.get(field):
                causes.invalid(f"metadata.ownerReferences[{i}].{field}", "", f"{field} must not be empty")


def _service(causes: Causes, value: Object) -> None:
    spec = value["spec"]
    if spec["type"] not in _SERVICE_TYPES:
        causes.unsupported("spec.type", spec["type"], _SERVICE_TYPES)
    ports = spec.get("ports") or []
    if not ports and spec.get("clusterIP") != "None" and spec["type"] != "ExternalName":
        causes.required("spec.ports")
    seen: set[str] = set()
    for i, port in enumerate(ports):
        _service_port(causes, f"spec.ports[{i}]", port, several=len(ports) > 1)
        if port.get("name") and port["name"] in seen:
            causes.duplicate(f"spec.ports[{i}].name", port["name"])
        seen.add(port.get("name", ""))
        if port.get("nodePort") and spec["type"] not in {"NodePort", "LoadBalancer"}:
            causes.forbidden(f"spec.ports[{i}].nodePort", "may not be used when `type` is 'ClusterIP'")


def _service_port(causes: Causes, path: str, port: Object, *, several: bool) -> None:
    if several and not port.get("name"):
        causes.required(f"{path}.name")
    if not 1 <= port.get("port", 0) <= _HIGHEST_PORT:
        causes.invalid(f"{path}.port", port.get("port", 0), "must be between 1 and 65535, inclusive")
    target = port.get("targetPort")
    if isinstance(target, int) and not 1 <= target <= _HIGHEST_PORT:
        causes.invalid(f"{path}.targetPort", target, "must be between 1 and 65535, inclusive")
    if port.get("protocol") not in {"TCP", "UDP", "SCTP"}:
        causes.unsupported(f"{path}.protocol", port.get("protocol"), ["SCTP", "TCP", "UDP"])
    node_port = port.get("nodePort", 0)
    if node_port and node_port not in NODE_PORTS:
        causes.invalid(
            f"{path}.nodePort",
            node_port,
            "provided port is not in the valid range. The range of valid ports is 30000-32767",
        )


def _cluster_ip_kept(causes: Causes, new: Object, old: Object) -> None:
    if old["type"] != "ExternalName" and new["type"] != "ExternalName" and new.get("clusterIP") != old.get("clusterIP"):
        causes.invalid("spec.clusterIP", new.get("clusterIP", ""), "field is immutable")


def _secret(causes: Causes, value: Object) -> None:
    total = 0
    for key, text in (value.get("data") or {}).items():
        if not key or names.environment_problem(key if not key[0].isdigit() else f"_{key}"):
            causes.invalid(
                f"data[{key}]", key, "a valid config key must consist of alphanumeric characters, '-', '_' or '.'"
            )
        total += len(_decoded(text))
    if total > _SECRET_BYTES:
        causes.invalid("data", "", f"Too long: must have at most {_SECRET_BYTES} bytes")


def _decoded(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return b""  # the decoder has refused it before


def _immutable(causes: Causes, new: Object, old: Object) -> None:
    if not old.get("immutable"):
        return
    if not new.get("immutable"):
        causes.forbidden("immutable", "field is immutable when `immutable` is set")
    for field in ("data", "binaryData"):
        if new.get(field) != old.get(field):
            causes.forbidden(field, "field is immutable when `immutable` is set")


def _node(causes: Causes, value: Object) -> None:
    for i, taint in enumerate(value["spec"].get("taints") or []):
        if problem := names.qualified_name_problem(taint.get("key", "")):
            causes.invalid(f"spec.taints[{i}]", taint.get("key", ""), problem)
        if taint.get("effect") not in _EFFECTS:
            causes.unsupported(f"spec.taints[{i}].effect", taint.get("effect", ""), _EFFECTS)
    for field in ("capacity", "allocatable"):
        for name, amount in (value["status"].get(field) or {}).items():
            try:
                quantity.parse(amount)
            except ValueError as error:
                causes.invalid(f"status.{field}[{name}]", amount, str(error))


def _event(causes: Causes, value: Object) -> None:
    involved = value.get("involvedObject") or {}
    namespace = value["metadata"].get("namespace")
    if involved.get("namespace", "") not in {namespace, ""}:
        causes.invalid("involvedObject.namespace", involved.get("namespace", ""), "does not match event.namespace")


_RULES: dict[str, Callable[[Causes, Object], None]] = {
    "pods": validate_pod,
    "services": _service,
    "secrets": _secret,
    "nodes": _node,
    "events": _event,
}
