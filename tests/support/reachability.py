"""Who reaches whom, computed from NetworkPolicies as Kubernetes means them.

A connection is there when the egress of the one end and the ingress of the other let it through. An end that no policy
selects for a direction lets everything through in it; ends that are no pods have no policies.
"""

import ipaddress
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Policy = Mapping[str, Any]


@dataclass(frozen=True)
class End:
    """A pod, or with no namespace something outside of the cluster's pods."""

    address: str
    namespace: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    namespace_labels: Mapping[str, str] = field(default_factory=dict)


def reaches(
    policies: Sequence[Policy], source: End, target: End, port: int, protocol: str = "TCP", *, blocks_are_pods: bool
) -> bool:
    """Whether a connection is let through.

    Args:
        blocks_are_pods: Whether an ipBlock that holds a pod's address means that pod: networks differ in this.
    """
    directions = (("Egress", "egress", "to", source, target), ("Ingress", "ingress", "from", target, source))
    for kind, rules, peers, own, other in directions:
        selecting = [policy for policy in policies if _selects(policy, own, kind)]
        allowed = any(
            _is_port(rule, port, protocol) and _is_peer(rule.get(peers), policy, other, blocks_are_pods)
            for policy in selecting
            for rule in policy["spec"].get(rules) or ()
        )
        if selecting and not allowed:
            return False
    return True


def _selects(policy: Policy, end: End, kind: str) -> bool:
    spec = policy["spec"]
    return (
        end.namespace == policy["metadata"]["namespace"]
        and kind in spec["policyTypes"]
        and _matches(spec["podSelector"], end.labels)
    )


def _is_port(rule: Mapping[str, Any], port: int, protocol: str) -> bool:
    ports = rule.get("ports")
    return not ports or any(one["port"] == port and one.get("protocol", "TCP") == protocol for one in ports)


def _is_peer(peers: Sequence[Mapping[str, Any]] | None, policy: Policy, end: End, blocks_are_pods: bool) -> bool:
    if not peers:
        return True
    return any(_is_one(peer, policy, end, blocks_are_pods) for peer in peers)


def _is_one(peer: Mapping[str, Any], policy: Policy, end: End, blocks_are_pods: bool) -> bool:
    if "ipBlock" in peer:
        return (blocks_are_pods or end.namespace is None) and _is_in(peer["ipBlock"], end.address)
    if end.namespace is None:
        return False
    if "namespaceSelector" in peer:
        namespace = _matches(peer["namespaceSelector"], end.namespace_labels)
    else:
        namespace = end.namespace == policy["metadata"]["namespace"]
    return namespace and _matches(peer.get("podSelector", {}), end.labels)


def _is_in(block: Mapping[str, Any], address: str) -> bool:
    own = ipaddress.ip_address(address)
    inside = own in ipaddress.ip_network(block["cidr"])
    return inside and not any(own in ipaddress.ip_network(one) for one in block.get("except") or ())


def _matches(selector: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    exact = all(labels.get(key) == value for key, value in (selector.get("matchLabels") or {}).items())
    return exact and all(_fits(one, labels) for one in selector.get("matchExpressions") or ())


def _fits(expression: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    value = labels.get(expression["key"])
    match expression["operator"]:
        case "In":
            return value in expression["values"]
        case "NotIn":
            return value not in expression["values"]
        case "Exists":
            return value is not None
        case "DoesNotExist":
            return value is None
    raise ValueError(expression["operator"])
