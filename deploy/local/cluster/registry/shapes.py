"""Types of known fields, so that a malformed body is refused as the API server's decoder refuses it.

Fields that are not named here pass unchecked. A shape is `str`, `int`, `bool`, `QUANTITY`, `PORT` (number or name),
`[shape]` for a list, `{"*": shape}` for a map, or `{"field": shape}` for an object.
"""

from typing import Any

from deploy.local.cluster.machinery import quantity
from deploy.local.cluster.machinery.errors import bad_request
from deploy.local.cluster.machinery.objects import Object

QUANTITY = "quantity"
PORT = "port"
TEXTS = {"*": str}
QUANTITIES = {"*": QUANTITY}

_METADATA = {
    "name": str,
    "generateName": str,
    "namespace": str,
    "uid": str,
    "resourceVersion": str,
    "labels": TEXTS,
    "annotations": TEXTS,
    "finalizers": [str],
    "ownerReferences": [{"apiVersion": str, "kind": str, "name": str, "uid": str, "controller": bool}],
}
_REF = {"name": str, "key": str, "optional": bool}
_PROBE = {
    "exec": {"command": [str]},
    "httpGet": {"path": str, "port": PORT, "host": str, "scheme": str},
    "tcpSocket": {"port": PORT, "host": str},
    "initialDelaySeconds": int,
    "periodSeconds": int,
    "timeoutSeconds": int,
    "successThreshold": int,
    "failureThreshold": int,
}
_ENV = {
    "name": str,
    "value": str,
    "valueFrom": {"secretKeyRef": _REF, "configMapKeyRef": _REF, "fieldRef": {"fieldPath": str}},
}
_CONTAINER = {
    "name": str,
    "image": str,
    "command": [str],
    "args": [str],
    "workingDir": str,
    "env": [_ENV],
    "envFrom": [{"prefix": str, "secretRef": _REF, "configMapRef": _REF}],
    "ports": [{"name": str, "containerPort": int, "protocol": str}],
    "resources": {"limits": QUANTITIES, "requests": QUANTITIES},
    "volumeMounts": [{"name": str, "mountPath": str, "subPath": str, "readOnly": bool}],
    "readinessProbe": _PROBE,
    "livenessProbe": _PROBE,
    "startupProbe": _PROBE,
}
_TOLERATION = {"key": str, "operator": str, "value": str, "effect": str, "tolerationSeconds": int}
_VOLUME = {
    "name": str,
    "emptyDir": {"medium": str, "sizeLimit": QUANTITY},
    "secret": {"secretName": str, "items": [{"key": str, "path": str, "mode": int}], "defaultMode": int},
    "configMap": {"name": str, "items": [{"key": str, "path": str, "mode": int}], "defaultMode": int},
}
_POD_SPEC = {
    "containers": [_CONTAINER],
    "initContainers": [_CONTAINER],
    "volumes": [_VOLUME],
    "nodeName": str,
    "nodeSelector": TEXTS,
    "restartPolicy": str,
    "terminationGracePeriodSeconds": int,
    "activeDeadlineSeconds": int,
    "automountServiceAccountToken": bool,
    "tolerations": [_TOLERATION],
    "serviceAccountName": str,
    "hostNetwork": bool,
    "affinity": {},
    "securityContext": {},
}
_SHAPES: dict[str, Any] = {
    "pods": {"spec": _POD_SPEC, "status": {"phase": str, "conditions": [{"type": str, "status": str}]}},
    "services": {
        "spec": {
            "type": str,
            "clusterIP": str,
            "selector": TEXTS,
            "ports": [{"name": str, "port": int, "nodePort": int, "targetPort": PORT, "protocol": str}],
        }
    },
    "secrets": {"data": TEXTS, "stringData": TEXTS, "type": str, "immutable": bool},
    "configmaps": {"data": TEXTS, "binaryData": TEXTS, "immutable": bool},
    "nodes": {
        "spec": {"unschedulable": bool, "taints": [{"key": str, "value": str, "effect": str}]},
        "status": {"capacity": QUANTITIES, "allocatable": QUANTITIES, "conditions": [{"type": str, "status": str}]},
    },
    "events": {"involvedObject": {"kind": str, "name": str}, "message": str, "reason": str, "count": int},
}


def check(resource: str, kind: str, value: Object) -> None:
    """Raises BadRequest when a known field has the wrong JSON type."""
    _check({"metadata": _METADATA, **_SHAPES.get(resource, {})}, value, kind)


def _check(shape: Any, value: Any, path: str) -> None:
    if isinstance(shape, dict):
        _expect(isinstance(value, dict), path, value, "object")
        for key, item in value.items():
            inner = shape.get(key, shape.get("*"))
            if inner is not None:
                _check(inner, item, f"{path}.{key}")
    elif isinstance(shape, list):
        _expect(isinstance(value, list), path, value, "array")
        for item in value:
            _check(shape[0], item, path)
    else:
        _expect(_is(shape, value), path, value, shape if isinstance(shape, str) else shape.__name__)


def _is(shape: Any, value: Any) -> bool:
    match shape:
        case "quantity":
            return _is_quantity(value)
        case "port":
            return isinstance(value, str | int) and not isinstance(value, bool)
    return isinstance(value, shape) and (shape is bool or not isinstance(value, bool))


def _is_quantity(value: Any) -> bool:
    try:
        quantity.parse(value)
    except ValueError:
        return False
    return True


def _expect(holds: bool, path: str, value: Any, wanted: str) -> None:
    if not holds:
        kind, _, field = path.partition(".")
        raise bad_request(
            f'{kind} in version "v1" cannot be handled as a {kind}: json: cannot unmarshal '
            f"{_json_type(value)} into Go struct field {kind}.{field} of type {wanted}"
        )


def _json_type(value: Any) -> str:
    names = {bool: "bool", int: "number", float: "number", str: "string", list: "array", dict: "object"}
    return names.get(type(value), "null")
