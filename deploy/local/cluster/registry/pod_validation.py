"""Rules of pods: a new pod's spec, and what may change afterwards."""

import re

from deploy.local.cluster.machinery import quantity
from deploy.local.cluster.machinery.errors import Causes
from deploy.local.cluster.machinery.objects import Object, copy
from deploy.local.cluster.registry import names

_HIGHEST_PORT = 65535
_RESTART_POLICIES = ["Always", "OnFailure", "Never"]
_PULL_POLICIES = ["Always", "IfNotPresent", "Never"]
_OPERATORS = ["In", "NotIn", "Exists", "DoesNotExist", "Gt", "Lt"]
_UPDATE_RULE = (
    "pod updates may not change fields other than `spec.containers[*].image`, `spec.initContainers[*].image`, "
    "`spec.activeDeadlineSeconds` or `spec.tolerations` (only additions to existing tolerations)"
)


def validate_pod(causes: Causes, value: Object) -> None:
    """Adds what is wrong with a pod, whose defaults are filled in."""
    spec = value["spec"]
    volumes = _volumes(causes, spec)
    if not spec.get("containers"):
        causes.required("spec.containers")
    seen: set[str] = set()
    for field in ("initContainers", "containers"):
        for i, container in enumerate(spec.get(field) or []):
            path = f"spec.{field}[{i}]"
            _container(causes, path, container, volumes)
            if container.get("name") in seen:
                causes.duplicate(f"{path}.name", container["name"])
            seen.add(container.get("name", ""))
    if spec["restartPolicy"] not in _RESTART_POLICIES:
        causes.unsupported("spec.restartPolicy", spec["restartPolicy"], _RESTART_POLICIES)
    if spec["terminationGracePeriodSeconds"] < 0:
        detail = "must be greater than or equal to 0"
        causes.invalid("spec.terminationGracePeriodSeconds", spec["terminationGracePeriodSeconds"], detail)
    if "activeDeadlineSeconds" in spec and spec["activeDeadlineSeconds"] < 1:
        detail = "must be between 1 and 2147483647, inclusive"
        causes.invalid("spec.activeDeadlineSeconds", spec["activeDeadlineSeconds"], detail)
    if spec.get("nodeName") and (problem := names.name_problem("nodes", spec["nodeName"])):
        causes.invalid("spec.nodeName", spec["nodeName"], problem)
    _placement(causes, spec)


def validate_pod_update(causes: Causes, new: Object, old: Object) -> None:
    """Adds a cause when the change touches what is fixed once a pod exists."""
    left, right = copy(new["spec"]), copy(old["spec"])
    if [c.get("name") for c in left.get("containers", [])] != [c.get("name") for c in right["containers"]]:
        causes.forbidden("spec.containers", "pod updates may not add or remove containers")
        return
    for spec in (left, right):
        spec.pop("activeDeadlineSeconds", None)
        for container in (*spec.get("containers", []), *spec.get("initContainers", [])):
            container.pop("image", None)
    added, before = left.pop("tolerations", []), right.pop("tolerations", [])
    if left != right or any(toleration not in added for toleration in before):
        causes.forbidden("spec", _UPDATE_RULE)


def _volumes(causes: Causes, spec: Object) -> set[str]:
    found: set[str] = set()
    for i, volume in enumerate(spec.get("volumes") or []):
        name = volume.get("name", "")
        if not name:
            causes.required(f"spec.volumes[{i}].name")
        elif problem := names.label_problem(name):
            causes.invalid(f"spec.volumes[{i}].name", name, problem)
        if name in found:
            causes.duplicate(f"spec.volumes[{i}].name", name)
        found.add(name)
        if "secret" in volume and not volume["secret"].get("secretName"):
            causes.required(f"spec.volumes[{i}].secret.secretName")
        if "configMap" in volume and not volume["configMap"].get("name"):
            causes.required(f"spec.volumes[{i}].configMap.name")
    return found


def _container(causes: Causes, path: str, container: Object, volumes: set[str]) -> None:
    name, image = container.get("name", ""), container.get("image", "")
    if not name:
        causes.required(f"{path}.name")
    elif problem := names.label_problem(name):
        causes.invalid(f"{path}.name", name, problem)
    if not image:
        causes.required(f"{path}.image")
    elif image != image.strip():
        causes.invalid(f"{path}.image", image, "must not have leading or trailing whitespace")
    if container["imagePullPolicy"] not in _PULL_POLICIES:
        causes.unsupported(f"{path}.imagePullPolicy", container["imagePullPolicy"], _PULL_POLICIES)
    _resources(causes, f"{path}.resources", container["resources"])
    _environment(causes, path, container)
    _mounts(causes, path, container, volumes)
    for i, port in enumerate(container.get("ports") or []):
        if not 1 <= port.get("containerPort", 0) <= _HIGHEST_PORT:
            detail = "must be between 1 and 65535, inclusive"
            causes.invalid(f"{path}.ports[{i}].containerPort", port.get("containerPort", 0), detail)
    for field in ("readinessProbe", "livenessProbe", "startupProbe"):
        _probe(causes, f"{path}.{field}", container.get(field), once=field != "readinessProbe")


def _environment(causes: Causes, path: str, container: Object) -> None:
    for i, entry in enumerate(container.get("env") or []):
        name = entry.get("name", "")
        if not name:
            causes.required(f"{path}.env[{i}].name")
        elif problem := names.environment_problem(name):
            causes.invalid(f"{path}.env[{i}].name", name, problem)
        if entry.get("value") and entry.get("valueFrom"):
            causes.invalid(f"{path}.env[{i}].valueFrom", "", "may not be specified when `value` is not empty")
        for reference in ("secretKeyRef", "configMapKeyRef"):
            if reference in (entry.get("valueFrom") or {}) and not entry["valueFrom"][reference].get("key"):
                causes.required(f"{path}.env[{i}].valueFrom.{reference}.key")


def _mounts(causes: Causes, path: str, container: Object, volumes: set[str]) -> None:
    seen: set[str] = set()
    for i, mount in enumerate(container.get("volumeMounts") or []):
        at = f"{path}.volumeMounts[{i}]"
        if mount.get("name", "") not in volumes:
            causes.not_found(f"{at}.name", mount.get("name", ""))
        if not mount.get("mountPath"):
            causes.required(f"{at}.mountPath")
        elif mount["mountPath"] in seen:
            causes.invalid(f"{at}.mountPath", mount["mountPath"], "must be unique")
        seen.add(mount.get("mountPath", ""))
        if re.search(r"(^|/)\.\.(/|$)", mount.get("subPath", "")):
            causes.invalid(f"{at}.subPath", mount["subPath"], "must not contain '..'")


def _resources(causes: Causes, path: str, resources: Object) -> None:
    limits, requests = resources.get("limits") or {}, resources.get("requests") or {}
    for field, amounts in (("limits", limits), ("requests", requests)):
        for name, amount in amounts.items():
            _amount(causes, f"{path}.{field}[{name}]", name, amount)
    if causes.found:
        return
    for name, amount in requests.items():
        if name not in limits:
            if quantity.is_extended(name):
                causes.required(f"{path}.limits", "Limit must be set for non overcommitable resources")
        elif quantity.is_extended(name) and quantity.parse(amount) != quantity.parse(limits[name]):
            causes.invalid(f"{path}.requests", amount, f"must be equal to {name} limit")
        elif quantity.parse(amount) > quantity.parse(limits[name]):
            causes.invalid(f"{path}.requests", amount, f"must be less than or equal to {name} limit")


def _amount(causes: Causes, path: str, name: str, amount: object) -> None:
    try:
        number = quantity.parse(amount)
    except ValueError as error:
        causes.invalid(path, amount, str(error))
        return
    if number < 0:
        causes.invalid(path, amount, "must be greater than or equal to 0")
    if quantity.is_extended(name) and number != int(number):
        causes.invalid(path, amount, "must be an integer")


def _probe(causes: Causes, path: str, probe: Object | None, *, once: bool) -> None:
    if probe is None:
        return
    handlers = [name for name in ("exec", "httpGet", "tcpSocket", "grpc") if name in probe]
    if not handlers:
        causes.required(path, "must specify a handler type")
    if len(handlers) > 1:
        causes.forbidden(f"{path}.{handlers[1]}", "may not specify more than 1 handler type")
    for field in ("initialDelaySeconds", "timeoutSeconds", "periodSeconds", "successThreshold", "failureThreshold"):
        if probe.get(field, 0) < 0:
            causes.invalid(f"{path}.{field}", probe[field], "must be greater than or equal to 0")
    if once and probe["successThreshold"] != 1:
        causes.invalid(f"{path}.successThreshold", probe["successThreshold"], "must be 1")


def _placement(causes: Causes, spec: Object) -> None:
    for i, toleration in enumerate(spec.get("tolerations") or []):
        operator = toleration.get("operator") or "Equal"
        if operator not in {"Equal", "Exists"}:
            causes.unsupported(f"spec.tolerations[{i}].operator", operator, ["Equal", "Exists"])
        if operator == "Exists" and toleration.get("value"):
            causes.invalid(
                f"spec.tolerations[{i}].operator",
                toleration["value"],
                "value must be empty when `operator` is 'Exists'",
            )
    affinity = (spec.get("affinity") or {}).get("nodeAffinity") or {}
    required = affinity.get("requiredDuringSchedulingIgnoredDuringExecution")
    if required is None:
        return
    path = "spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms"
    if not required.get("nodeSelectorTerms"):
        causes.required(path, "must have at least one node selector term")
    for i, term in enumerate(required.get("nodeSelectorTerms") or []):
        for field in ("matchExpressions", "matchFields"):
            for j, expression in enumerate(term.get(field) or []):
                if expression.get("operator") not in _OPERATORS:
                    causes.invalid(
                        f"{path}[{i}].{field}[{j}].operator",
                        expression.get("operator", ""),
                        "not a valid selector operator",
                    )
