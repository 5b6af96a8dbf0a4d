"""What a pod asks for, counted as the scheduler and the kubelet count it."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from decimal import Decimal

from deploy.local.cluster.machinery import quantity
from deploy.local.cluster.machinery.objects import Object

Amounts = Mapping[str, Decimal]
_ENDED = {"Succeeded", "Failed"}


def pod_requests(spec: Object) -> dict[str, Decimal]:
    """Sum of the containers or the largest init container, whichever is more, and one of `pods`."""
    total: dict[str, Decimal] = defaultdict(Decimal)
    for container in spec.get("containers") or []:
        for name, amount in _requests(container).items():
            total[name] += amount
    for container in spec.get("initContainers") or []:
        for name, amount in _requests(container).items():
            total[name] = max(total[name], amount)
    total["pods"] = Decimal(1)
    return dict(total)


def occupies(pod: Object) -> bool:
    """Whether a pod holds what it asked for: until it has ended, also while it is being deleted."""
    return pod.get("status", {}).get("phase") not in _ENDED


def used_by(pods: Iterable[Object]) -> dict[str, Decimal]:
    """What the pods hold together."""
    total: dict[str, Decimal] = defaultdict(Decimal)
    for pod in pods:
        for name, amount in pod_requests(pod["spec"]).items():
            total[name] += amount
    return total


def allocatable(node: Object) -> dict[str, Decimal]:
    """`status.allocatable` as numbers."""
    return {name: quantity.parse(amount) for name, amount in node.get("status", {}).get("allocatable", {}).items()}


def insufficient(requested: Amounts, used: Amounts, available: Amounts) -> list[str]:
    """Names of the resources of which too little is left, in alphabetical order."""
    return sorted(
        name
        for name, amount in requested.items()
        if amount > 0 and amount > available.get(name, Decimal(0)) - used.get(name, Decimal(0))
    )


def quality_of_service(spec: Object) -> str:
    """The pod's QoS class: Guaranteed, Burstable or BestEffort."""
    containers = [*(spec.get("containers") or []), *(spec.get("initContainers") or [])]
    wanted = [
        {key: (c.get("resources") or {}).get(key) or {} for key in ("limits", "requests")}
        for c in containers
        if isinstance(c, dict)
    ]
    if not any(entry[key].get(name) for entry in wanted for key in entry for name in ("cpu", "memory")):
        return "BestEffort"
    if all(
        name in entry["limits"] and entry["requests"].get(name, entry["limits"][name]) == entry["limits"][name]
        for entry in wanted
        for name in ("cpu", "memory")
    ):
        return "Guaranteed"
    return "Burstable"


def _requests(container: Object) -> dict[str, Decimal]:
    requests = (container.get("resources") or {}).get("requests") or {}
    return {name: quantity.parse(amount) for name, amount in requests.items()}
