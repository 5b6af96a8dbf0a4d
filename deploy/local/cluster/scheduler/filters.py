"""Which nodes a pod may run on and which of them is best: pure rules."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal

from deploy.local.cluster.machinery.objects import Object
from deploy.local.cluster.machinery.selectors import requirements_of
from deploy.local.cluster.scheduler.requests import Amounts, allocatable, insufficient, pod_requests

_BLOCKING_EFFECTS = {"NoSchedule", "NoExecute"}
_UNSCHEDULABLE_TAINT = {"key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule"}
_AFFINITY_MISMATCH = "node(s) didn't match Pod's node affinity/selector"


@dataclass(frozen=True, slots=True)
class Decision:
    """The node chosen, or why there is none."""

    node: str | None
    message: str = ""


def choose(pod: Object, nodes: list[Object], used: Mapping[str, Amounts]) -> Decision:
    """Picks the least loaded node that fits; `used` is by node name."""
    if not nodes:
        return Decision(None, "no nodes available to schedule pods")
    reasons: Counter[str] = Counter()
    fitting: list[tuple[Decimal, str]] = []
    requested = pod_requests(pod["spec"])
    for node in nodes:
        name = node["metadata"]["name"]
        problems = mismatches(pod, node) or shortages(requested, used.get(name, {}), node)
        if problems:
            reasons.update(problems)
        else:
            fitting.append((_load(requested, used.get(name, {}), node), name))
    if fitting:
        return Decision(min(fitting)[1])
    texts = sorted(f"{count} {reason}" for reason, count in reasons.items())
    return Decision(None, f"0/{len(nodes)} nodes are available: {', '.join(texts)}.")


def mismatches(pod: Object, node: Object) -> list[str]:
    """Why the node is not for this pod whatever its load: cordon, taints, selectors. At most one reason."""
    spec = pod["spec"]
    if node["spec"].get("unschedulable") and not tolerates(spec, _UNSCHEDULABLE_TAINT):
        return ["node(s) were unschedulable"]
    for taint in node["spec"].get("taints") or []:
        if taint["effect"] in _BLOCKING_EFFECTS and not tolerates(spec, taint):
            return [f"node(s) had untolerated taint {{{taint['key']}: {taint.get('value', '')}}}"]
    if not matches_node_selector(spec, node):
        return [_AFFINITY_MISMATCH]
    return []


def shortages(requested: Amounts, used: Amounts, node: Object) -> list[str]:
    """Reasons for the resources that do not suffice."""
    names = insufficient(requested, used, allocatable(node))
    return ["Too many pods" if name == "pods" else f"Insufficient {name}" for name in names]


def tolerates(spec: Object, taint: Object) -> bool:
    """Whether any toleration of a pod covers a taint."""
    return any(_covers(toleration, taint) for toleration in spec.get("tolerations") or [])


def matches_node_selector(spec: Object, node: Object) -> bool:
    """Whether a node satisfies nodeSelector and the required node affinity."""
    labels = node["metadata"].get("labels") or {}
    if any(labels.get(key) != value for key, value in (spec.get("nodeSelector") or {}).items()):
        return False
    affinity = (spec.get("affinity") or {}).get("nodeAffinity") or {}
    required = affinity.get("requiredDuringSchedulingIgnoredDuringExecution")
    if not required:
        return True
    return any(_term_matches(term, node, labels) for term in required.get("nodeSelectorTerms") or [])


def _term_matches(term: Object, node: Object, labels: Mapping[str, str]) -> bool:
    expressions = requirements_of(term.get("matchExpressions") or [])
    fields = requirements_of(term.get("matchFields") or [])
    if not expressions and not fields:
        return False  # an empty term selects nothing
    names = {"metadata.name": node["metadata"]["name"]}
    return all(e.matches(labels) for e in expressions) and all(f.matches(names) for f in fields)


def _covers(toleration: Object, taint: Object) -> bool:
    if toleration.get("effect") and toleration["effect"] != taint["effect"]:
        return False
    if toleration.get("key") and toleration["key"] != taint["key"]:
        return False
    if (toleration.get("operator") or "Equal") == "Exists":
        return True
    return bool(toleration.get("key")) and toleration.get("value", "") == taint.get("value", "")


def _load(requested: Amounts, used: Amounts, node: Object) -> Decimal:
    """The mean share of what is asked for that would be taken; lower is better."""
    available = allocatable(node)
    shares = [
        (used.get(name, Decimal(0)) + amount) / available[name]
        for name, amount in requested.items()
        if available.get(name)
    ]
    return sum(shares, Decimal(0)) / len(shares) if shares else Decimal(0)
