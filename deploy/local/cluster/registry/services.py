"""Allocation of cluster IPs and node ports. What is in use is read from the services: no counters that can drift."""

import ipaddress
import random
from collections.abc import Iterable

from deploy.local.cluster.machinery import errors
from deploy.local.cluster.machinery.objects import Object
from deploy.local.cluster.registry.validation import NODE_PORTS
from deploy.local.ports import claim, is_free

_CLUSTER_NETWORK = ipaddress.IPv4Network("10.96.0.0/16")
_HAVE_NODE_PORTS = {"NodePort", "LoadBalancer"}


def allocate(service: Object, old: Object | None, services: Iterable[Object]) -> None:
    """Gives a new or changed service its cluster IP and node ports; raises Invalid when a wanted one is taken."""
    others = [other for other in services if other["metadata"]["uid"] != service["metadata"]["uid"]]
    spec = service["spec"]
    if spec["type"] == "ExternalName":
        spec.pop("clusterIP", None)
        return
    _cluster_ip(service, others)
    if has_node_ports(service):
        _keep_node_ports(spec, old)
        _node_ports(service, others)
    else:
        for port in spec.get("ports") or []:
            port.pop("nodePort", None)


def has_node_ports(service: Object) -> bool:
    """Whether its ports are open on every node."""
    return service["spec"]["type"] in _HAVE_NODE_PORTS


def _cluster_ip(service: Object, others: list[Object]) -> None:
    spec = service["spec"]
    used = {other["spec"].get("clusterIP") for other in others}
    wanted = spec.get("clusterIP")
    if wanted not in {None, "", "None"}:
        _check_cluster_ip(service, str(wanted), used)
    elif not wanted:
        spec["clusterIP"] = _free_cluster_ip(used)
    spec["clusterIPs"] = [spec["clusterIP"]]
    spec.setdefault("ipFamilies", ["IPv4"])
    spec.setdefault("ipFamilyPolicy", "SingleStack")


def _free_cluster_ip(used: set[str | None]) -> str:
    while True:
        address = str(_CLUSTER_NETWORK[random.randrange(10, _CLUSTER_NETWORK.num_addresses - 1)])  # noqa: S311
        if address not in used:
            return address


def _check_cluster_ip(service: Object, wanted: str, used: set[str | None]) -> None:
    causes = errors.Causes()
    try:
        inside = ipaddress.IPv4Address(wanted) in _CLUSTER_NETWORK
    except ValueError:
        inside = False
    if not inside:
        causes.invalid("spec.clusterIP", wanted, f"provided IP is not in the valid range {_CLUSTER_NETWORK}")
    elif wanted in used:
        causes.invalid("spec.clusterIP", wanted, "provided IP is already allocated")
    if causes.found:
        raise errors.invalid("Service", service["metadata"]["name"], causes.found)


def _keep_node_ports(spec: Object, old: Object | None) -> None:
    before = {
        (port["port"], port["protocol"]): port["nodePort"]
        for port in (old or {}).get("spec", {}).get("ports") or []
        if "nodePort" in port
    }
    for port in spec.get("ports") or []:
        known = before.get((port["port"], port["protocol"]))
        if known and not port.get("nodePort"):
            port["nodePort"] = known


def _node_ports(service: Object, others: list[Object]) -> None:
    used = {
        (port["nodePort"], port["protocol"])
        for other in others
        for port in other["spec"].get("ports") or []
        if port.get("nodePort")
    }
    causes = errors.Causes()
    for i, port in enumerate(service["spec"].get("ports") or []):
        wanted = port.get("nodePort")
        if wanted and (wanted, port["protocol"]) in used:
            causes.invalid(f"spec.ports[{i}].nodePort", wanted, "provided port is already allocated")
        elif not wanted:
            port["nodePort"] = _free_node_port({number for number, _ in used})
        used.add((port.get("nodePort"), port["protocol"]))
    if causes.found:
        raise errors.invalid("Service", service["metadata"]["name"], causes.found)


def _free_node_port(used: set[int]) -> int:
    """A port that no service has, nor any other program of this machine, nor a simulator that is about to open it."""
    first = random.randrange(len(NODE_PORTS))  # noqa: S311  so that two simulators seldom want the same
    for number in range(len(NODE_PORTS)):
        port = NODE_PORTS[(first + number) % len(NODE_PORTS)]
        if port not in used and is_free(port) and claim(port):
            return port
    raise errors.StatusError(500, "InternalError", "Internal error occurred: range is full")
