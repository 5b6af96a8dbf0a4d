"""The columns that `kubectl get` prints."""

from collections.abc import Callable
from datetime import datetime
from typing import Any

from deploy.local.cluster.machinery.objects import Object, now, parse_timestamp
from deploy.local.cluster.registry.resources import Resource

_NONE = "<none>"
Cells = list[Any]


def render(resource: Resource, values: list[Object], include_object: str) -> Object:
    """`columnDefinitions` and `rows` of a Table."""
    columns, cells = _PRINTERS.get(resource.plural, (_DEFAULT_COLUMNS, _default))
    moment = now()
    rows = [_row(value, cells(value, moment), include_object) for value in values]
    return {"columnDefinitions": columns, "rows": rows}


def age(since: str | None, moment: datetime) -> str:
    """How long ago, as kubectl writes it: 5s, 3m20s, 2h, 4d."""
    if not since:
        return "<unknown>"
    seconds = max(int((moment - parse_timestamp(since)).total_seconds()), 0)
    minutes, hours, days = seconds // 60, seconds // 3600, seconds // 86400
    # the steps of kubectl's duration format: below the limit, in that unit
    for amount, limit, text in (
        (seconds, 120, f"{seconds}s"),
        (minutes, 10, f"{minutes}m{seconds % 60}s" if seconds % 60 else f"{minutes}m"),
        (minutes, 180, f"{minutes}m"),
        (hours, 48, f"{hours}h"),
    ):
        if amount < limit:
            return text
    return f"{days}d"


def _columns(*names: str) -> list[Object]:
    """Column definitions; a name that begins with `-` is shown with `-o wide` only."""
    return [
        {
            "name": name.removeprefix("-"),
            "type": "integer" if name in {"Data", "Secrets"} else "string",
            "format": "name" if name == "Name" else "",
            "description": "",
            "priority": 1 if name.startswith("-") else 0,
        }
        for name in names
    ]


def _row(value: Object, cells: Cells, include_object: str) -> Object:
    row: Object = {"cells": cells}
    if include_object == "Object":
        row["object"] = value
    elif include_object == "Metadata":
        row["object"] = {
            "kind": "PartialObjectMetadata",
            "apiVersion": "meta.k8s.io/v1",
            "metadata": value["metadata"],
        }
    return row


def _name(value: Object) -> str:
    return str(value["metadata"]["name"])


def _age(value: Object, moment: datetime) -> str:
    return age(value["metadata"].get("creationTimestamp"), moment)


def _default(value: Object, _moment: datetime) -> Cells:
    return [_name(value), value["metadata"].get("creationTimestamp")]


def _pod(value: Object, moment: datetime) -> Cells:
    spec, status = value["spec"], value.get("status", {})
    statuses = status.get("containerStatuses", [])
    ready = sum(1 for entry in statuses if entry.get("ready"))
    restarts = sum(entry.get("restartCount", 0) for entry in statuses)
    return [
        _name(value),
        f"{ready}/{len(spec['containers'])}",
        pod_status(value),
        str(restarts),
        _age(value, moment),
        status.get("podIP") or _NONE,
        spec.get("nodeName") or _NONE,
        status.get("nominatedNodeName") or _NONE,
        _NONE,
    ]


def pod_status(value: Object) -> str:
    """The word in the STATUS column."""
    status = value.get("status", {})
    word = status.get("reason") or status.get("phase", "")
    initializing = _initializing(value)
    if initializing is not None:
        word = initializing
    else:
        running = False
        for entry in reversed(status.get("containerStatuses", [])):
            state = entry.get("state", {})
            word = _state_word(state) or word
            running = running or (bool(entry.get("ready")) and "running" in state)
        if word == "Completed" and running:
            word = "Running"
    return "Terminating" if "deletionTimestamp" in value["metadata"] else str(word)


def _initializing(value: Object) -> str | None:
    entries = value.get("status", {}).get("initContainerStatuses", [])
    for i, entry in enumerate(entries):
        state = entry.get("state", {})
        if state.get("terminated", {}).get("exitCode") == 0:
            continue
        word = _state_word(state)
        if word and word != "PodInitializing":
            return f"Init:{word}"
        return f"Init:{i}/{len(entries)}"
    return None


def _state_word(state: Object) -> str:
    if "waiting" in state:
        return str(state["waiting"].get("reason", ""))
    if "terminated" not in state:
        return ""
    ended = state["terminated"]
    if ended.get("reason"):
        return str(ended["reason"])
    return f"Signal:{ended['signal']}" if ended.get("signal") else f"ExitCode:{ended.get('exitCode')}"


def _node(value: Object, moment: datetime) -> Cells:
    status = value.get("status", {})
    info = status.get("nodeInfo", {})
    ready = next((c["status"] for c in status.get("conditions", []) if c["type"] == "Ready"), "Unknown")
    words = ["Ready" if ready == "True" else "NotReady" if ready == "False" else "Unknown"]
    if value["spec"].get("unschedulable"):
        words.append("SchedulingDisabled")
    addresses = {entry["type"]: entry["address"] for entry in status.get("addresses", [])}
    prefix = "node-role.kubernetes.io/"
    labels = value["metadata"].get("labels") or {}
    roles = sorted(label.removeprefix(prefix) for label in labels if label.startswith(prefix))
    return [
        _name(value),
        ",".join(words),
        ",".join(roles) or _NONE,
        _age(value, moment),
        info.get("kubeletVersion", ""),
        addresses.get("InternalIP", _NONE),
        addresses.get("ExternalIP", _NONE),
        info.get("osImage", "<unknown>"),
        info.get("kernelVersion", "<unknown>"),
        info.get("containerRuntimeVersion", "<unknown>"),
    ]


def _service(value: Object, moment: datetime) -> Cells:
    spec = value["spec"]
    ports = [
        f"{p['port']}:{p['nodePort']}/{p['protocol']}" if p.get("nodePort") else f"{p['port']}/{p['protocol']}"
        for p in spec.get("ports") or []
    ]
    selector = ",".join(f"{key}={text}" for key, text in sorted((spec.get("selector") or {}).items()))
    external = "<pending>" if spec["type"] == "LoadBalancer" else _NONE
    return [
        _name(value),
        spec["type"],
        spec.get("clusterIP", _NONE),
        external,
        ",".join(ports) or _NONE,
        _age(value, moment),
        selector or _NONE,
    ]


def _event(value: Object, moment: datetime) -> Cells:
    involved = value.get("involvedObject", {})
    last = value.get("lastTimestamp") or value.get("eventTime") or value["metadata"].get("creationTimestamp")
    return [
        age(last, moment),
        value.get("type", ""),
        value.get("reason", ""),
        f"{str(involved.get('kind', '')).lower()}/{involved.get('name', '')}",
        str(value.get("message", "")).strip(),
        _name(value),
    ]


def _secret(value: Object, moment: datetime) -> Cells:
    return [_name(value), value.get("type", ""), len(value.get("data") or {}), _age(value, moment)]


def _config_map(value: Object, moment: datetime) -> Cells:
    count = len(value.get("data") or {}) + len(value.get("binaryData") or {})
    return [_name(value), count, _age(value, moment)]


def _namespace(value: Object, moment: datetime) -> Cells:
    return [_name(value), value["status"].get("phase", ""), _age(value, moment)]


def _service_account(value: Object, moment: datetime) -> Cells:
    return [_name(value), len(value.get("secrets") or []), _age(value, moment)]


_DEFAULT_COLUMNS = _columns("Name", "Created At")
_PRINTERS: dict[str, tuple[list[Object], Callable[[Object, datetime], Cells]]] = {
    "pods": (
        _columns("Name", "Ready", "Status", "Restarts", "Age", "-IP", "-Node", "-Nominated Node", "-Readiness Gates"),
        _pod,
    ),
    "nodes": (
        _columns(
            "Name",
            "Status",
            "Roles",
            "Age",
            "Version",
            "-Internal-IP",
            "-External-IP",
            "-OS-Image",
            "-Kernel-Version",
            "-Container-Runtime",
        ),
        _node,
    ),
    "services": (
        _columns("Name", "Type", "Cluster-IP", "External-IP", "Port(s)", "Age", "-Selector"),
        _service,
    ),
    "events": (_columns("Last Seen", "Type", "Reason", "Object", "Message", "-Name"), _event),
    "secrets": (_columns("Name", "Type", "Data", "Age"), _secret),
    "configmaps": (_columns("Name", "Data", "Age"), _config_map),
    "namespaces": (_columns("Name", "Status", "Age"), _namespace),
    "serviceaccounts": (_columns("Name", "Secrets", "Age"), _service_account),
}
