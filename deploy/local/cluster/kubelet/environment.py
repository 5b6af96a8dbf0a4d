"""A container's environment and command line: pure, with what they refer to looked up through a callable."""

import base64
import re
from collections.abc import Callable
from decimal import ROUND_CEILING

from deploy.local.cluster.machinery import quantity
from deploy.local.cluster.machinery.objects import Object

_REFERENCE = re.compile(r"\$\$|\$\(([^)]*)\)")  # to the next closer, whatever stands between, as the real one reads
_SUBSCRIPT = re.compile(r"metadata\.(labels|annotations)\['([^']+)'\]")
_IDLE = ["tail", "-f", "/dev/null"]

Lookup = Callable[[str, str], Object | None]
"""Finds an object of the pod's namespace by plural resource name and name."""


class ConfigError(Exception):
    """The container cannot be created yet: CreateContainerConfigError. The text is for the user."""


def expand(text: str, variables: dict[str, str]) -> str:
    """Replaces $(NAME) by its value; an unknown one stays, $$ stands for $."""

    def replace(match: re.Match[str]) -> str:
        if match[0] == "$$":
            return "$"
        return variables.get(match[1], match[0])

    return _REFERENCE.sub(replace, text)


def command_line(container: Object, variables: dict[str, str]) -> list[str]:
    """What to execute. Images have no entry point here: without a command the container idles until it is stopped."""
    words = [*(container.get("command") or []), *(container.get("args") or [])]
    return [expand(word, variables) for word in words] or list(_IDLE)


def variables_of(container: Object, pod: Object, lookup: Lookup) -> dict[str, str]:
    """`envFrom` and `env`, later entries over earlier ones; raises ConfigError when a reference leads nowhere."""
    found: dict[str, str] = {}
    for source in container.get("envFrom") or []:
        prefix = source.get("prefix", "")
        for resource, field in (("configmaps", "configMapRef"), ("secrets", "secretRef")):
            if field in source:
                data = _data(resource, source[field], lookup)
                found |= {prefix + key: value for key, value in data.items()}
    for entry in container.get("env") or []:
        if "valueFrom" in entry:
            value = _referenced(entry["valueFrom"], container, pod, lookup)
            if value is not None:
                found[entry["name"]] = value
        else:
            found[entry["name"]] = expand(entry.get("value", ""), found)
    return found


def texts_of(value: Object, resource: str) -> dict[str, bytes]:
    """The decoded content of a Secret or ConfigMap."""
    if resource == "secrets":
        return {key: base64.b64decode(text) for key, text in (value.get("data") or {}).items()}
    binary = {key: base64.b64decode(text) for key, text in (value.get("binaryData") or {}).items()}
    return {key: text.encode() for key, text in (value.get("data") or {}).items()} | binary


def field_value(pod: Object, path: str) -> str:
    """A field of the downward API; raises ConfigError for one that is not offered."""
    metadata, status = pod["metadata"], pod.get("status", {})
    if match := _SUBSCRIPT.fullmatch(path):
        return str((metadata.get(match[1]) or {}).get(match[2], ""))
    offered = {
        "metadata.name": metadata["name"],
        "metadata.namespace": metadata["namespace"],
        "metadata.uid": metadata["uid"],
        "spec.nodeName": pod["spec"].get("nodeName", ""),
        "spec.serviceAccountName": pod["spec"].get("serviceAccountName", ""),
        "status.hostIP": status.get("hostIP", ""),
        "status.podIP": status.get("podIP", ""),
        "status.podIPs": status.get("podIP", ""),
    }
    if path not in offered:
        raise ConfigError(f"unsupported fieldPath: {path}")
    return str(offered[path])


def _data(resource: str, reference: Object, lookup: Lookup) -> dict[str, str]:
    value = lookup(resource, reference.get("name", ""))
    if value is None:
        if reference.get("optional"):
            return {}
        raise ConfigError(f'{resource.removesuffix("s")} "{reference.get("name", "")}" not found')
    return {key: content.decode(errors="replace") for key, content in texts_of(value, resource).items()}


def _referenced(source: Object, container: Object, pod: Object, lookup: Lookup) -> str | None:
    if "fieldRef" in source:
        return field_value(pod, source["fieldRef"]["fieldPath"])
    if "resourceFieldRef" in source:
        return _resource_value(source["resourceFieldRef"], container)
    for resource, field in (("secrets", "secretKeyRef"), ("configmaps", "configMapKeyRef")):
        if field in source:
            reference = source[field]
            data = _data(resource, reference, lookup)
            if reference["key"] in data:
                return data[reference["key"]]
            if not reference.get("optional"):
                kind = "Secret" if resource == "secrets" else "ConfigMap"
                raise ConfigError(
                    f"couldn't find key {reference['key']} in {kind} {pod['metadata']['namespace']}/{reference['name']}"
                )
    return None


def _resource_value(reference: Object, container: Object) -> str:
    field, _, name = str(reference.get("resource", "")).partition(".")
    amount = ((container.get("resources") or {}).get(field) or {}).get(name, "0")
    divisor = quantity.parse(reference.get("divisor") or "1")
    return str((quantity.parse(amount) / (divisor or 1)).to_integral_value(ROUND_CEILING))
