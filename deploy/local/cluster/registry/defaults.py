"""Defaults that the API server fills in, per kind; each changes the object that it is given."""

from collections.abc import Callable
from typing import Any

from deploy.local.cluster.machinery.objects import Object

_NOT_READY_SECONDS = 300


def apply(resource: str, value: Object) -> None:
    """Fills in the defaults of a kind; idempotent."""
    default = _DEFAULTS.get(resource)
    if default is not None:
        default(value)


def _pod(value: Object) -> None:
    spec = value.setdefault("spec", {})
    spec.setdefault("restartPolicy", "Always")
    spec.setdefault("terminationGracePeriodSeconds", 30)
    spec.setdefault("dnsPolicy", "ClusterFirst")
    spec.setdefault("serviceAccountName", spec.get("serviceAccount") or "default")
    spec.setdefault("serviceAccount", spec["serviceAccountName"])
    spec.setdefault("securityContext", {})
    spec.setdefault("schedulerName", "default-scheduler")
    spec.setdefault("enableServiceLinks", True)
    spec.setdefault("priority", 0)
    spec.setdefault("preemptionPolicy", "PreemptLowerPriority")
    for volume in spec.get("volumes") or []:
        _volume(volume)
    for field in ("containers", "initContainers"):
        for container in spec.get(field) or []:
            _container(container)
    _tolerations(spec)


def _volume(volume: Object) -> None:
    if len(volume) == 1:
        volume["emptyDir"] = {}
    for source in ("secret", "configMap", "projected", "downwardAPI"):
        if source in volume:
            volume[source].setdefault("defaultMode", 0o644)


def _container(container: Object) -> None:
    image = str(container.get("image", ""))
    tag = image.rsplit("/", 1)[-1].partition(":")[2]
    latest = "@" not in image and tag in {"", "latest"}
    container.setdefault("imagePullPolicy", "Always" if latest else "IfNotPresent")
    container.setdefault("terminationMessagePath", "/dev/termination-log")
    container.setdefault("terminationMessagePolicy", "File")
    resources = container.setdefault("resources", {})
    for name, limit in (resources.get("limits") or {}).items():
        resources.setdefault("requests", {}).setdefault(name, limit)
    for port in container.get("ports") or []:
        port.setdefault("protocol", "TCP")
    for probe in ("readinessProbe", "livenessProbe", "startupProbe"):
        if probe in container:
            _probe(container[probe])
    for entry in container.get("env") or []:
        if "fieldRef" in (entry.get("valueFrom") or {}):
            entry["valueFrom"]["fieldRef"].setdefault("apiVersion", "v1")


def _probe(probe: Object) -> None:
    for field, value in (
        ("timeoutSeconds", 1),
        ("periodSeconds", 10),
        ("successThreshold", 1),
        ("failureThreshold", 3),
    ):
        if not probe.get(field):
            probe[field] = value
    if "httpGet" in probe:
        probe["httpGet"].setdefault("path", "/")
        probe["httpGet"].setdefault("scheme", "HTTP")


def _tolerations(spec: Object) -> None:
    # what the DefaultTolerationSeconds admission plugin adds
    tolerations = spec.setdefault("tolerations", [])
    for key in ("node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"):
        if not any(t.get("key") in {None, key} and t.get("effect") in {None, "", "NoExecute"} for t in tolerations):
            tolerations.append(
                {"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": _NOT_READY_SECONDS}
            )


def _service(value: Object) -> None:
    spec = value.setdefault("spec", {})
    kind = spec.setdefault("type", "ClusterIP")
    spec.setdefault("sessionAffinity", "None")
    for port in spec.get("ports") or []:
        port.setdefault("protocol", "TCP")
        if "targetPort" not in port and "port" in port:
            port["targetPort"] = port["port"]
    if kind in {"NodePort", "LoadBalancer"}:
        spec.setdefault("externalTrafficPolicy", "Cluster")
    if kind != "ExternalName":
        spec.setdefault("internalTrafficPolicy", "Cluster")
    value.setdefault("status", {"loadBalancer": {}})


def _secret(value: Object) -> None:
    value.setdefault("type", "Opaque")


def _namespace(value: Object) -> None:
    value.setdefault("spec", {}).setdefault("finalizers", ["kubernetes"])
    value.setdefault("status", {}).setdefault("phase", "Active")


def _node(value: Object) -> None:
    value.setdefault("spec", {})
    status = value.setdefault("status", {})
    if "capacity" in status:
        status.setdefault("allocatable", dict(status["capacity"]))


def _event(value: Object) -> None:
    value.setdefault("source", {})
    for field in ("firstTimestamp", "lastTimestamp", "eventTime"):
        value.setdefault(field, None)
    value.setdefault("type", "Normal")


def _claim(value: Object) -> None:
    value.setdefault("spec", {}).setdefault("volumeMode", "Filesystem")
    value.setdefault("status", {}).setdefault("phase", "Pending")


def _volume_object(value: Object) -> None:
    spec = value.setdefault("spec", {})
    spec.setdefault("volumeMode", "Filesystem")
    spec.setdefault("persistentVolumeReclaimPolicy", "Retain")
    value.setdefault("status", {}).setdefault("phase", "Available")


def _ingress(value: Object) -> None:
    value.setdefault("status", {}).setdefault("loadBalancer", {})


_DEFAULTS: dict[str, Callable[[Any], None]] = {
    "pods": _pod,
    "services": _service,
    "secrets": _secret,
    "namespaces": _namespace,
    "nodes": _node,
    "events": _event,
    "persistentvolumeclaims": _claim,
    "persistentvolumes": _volume_object,
    "ingresses": _ingress,
}
