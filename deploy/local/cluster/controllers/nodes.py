"""The node lifecycle controller (taints that follow conditions) and the pod garbage collector."""

import asyncio

from deploy.local.cluster.machinery.objects import Object, now, timestamp
from deploy.local.cluster.registry.deletion import DeleteOptions
from deploy.local.cluster.registry.registry import Registry, Target
from deploy.local.cluster.registry.resources import RESOURCES
from deploy.local.cluster.registry.store import Change

_OWN = {
    "node.kubernetes.io/not-ready",
    "node.kubernetes.io/unreachable",
    "node.kubernetes.io/unschedulable",
}


def wanted_taints(node: Object) -> list[tuple[str, str]]:
    """The taints, as key and effect, that a node's conditions and cordon call for."""
    conditions = {c["type"]: c["status"] for c in node.get("status", {}).get("conditions", [])}
    wanted: list[tuple[str, str]] = []
    match conditions.get("Ready"):
        case "True":
            pass
        case "Unknown":
            wanted += [("node.kubernetes.io/unreachable", effect) for effect in ("NoSchedule", "NoExecute")]
        case "False":
            wanted += [("node.kubernetes.io/not-ready", effect) for effect in ("NoSchedule", "NoExecute")]
        case _:
            wanted.append(("node.kubernetes.io/not-ready", "NoSchedule"))
    if node["spec"].get("unschedulable"):
        wanted.append(("node.kubernetes.io/unschedulable", "NoSchedule"))
    return wanted


class NodeLifecycleController:
    """Woken by changes of nodes and pods."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._wake = asyncio.Event()

    def on_change(self, change: Change) -> None:
        """Subscribes to the store."""
        if change.resource == "nodes" or (change.resource == "pods" and change.type != "DELETED"):
            self._wake.set()

    async def run(self) -> None:
        """Runs until cancelled."""
        while True:
            for node in list(self._registry.store.values("nodes")):
                self._taint(node)
            self._collect_lost_pods()
            await self._wake.wait()
            self._wake.clear()

    def _taint(self, node: Object) -> None:
        wanted = wanted_taints(node)
        taints = node["spec"].get("taints") or []
        present = [(taint["key"], taint["effect"]) for taint in taints if taint["key"] in _OWN]
        if sorted(wanted) == sorted(present):
            return
        kept = [taint for taint in taints if taint["key"] not in _OWN or (taint["key"], taint["effect"]) in wanted]
        for key, effect in wanted:
            if (key, effect) not in present:
                taint = {"key": key, "effect": effect}
                kept.append(taint | ({"timeAdded": timestamp(now())} if effect == "NoExecute" else {}))

        def change(value: Object) -> None:
            value["spec"]["taints"] = kept
            if not kept:
                del value["spec"]["taints"]

        self._registry.modify(Target(RESOURCES["nodes"], "", node["metadata"]["name"]), change)

    def _collect_lost_pods(self) -> None:
        """Pods of a node that does not exist are deleted by force: no kubelet is left that could confirm their end."""
        store = self._registry.store
        for pod in list(store.values("pods")):
            node, metadata = pod["spec"].get("nodeName"), pod["metadata"]
            if node and store.get("nodes", "", node) is None:
                options = DeleteOptions(grace_period_seconds=0, uid=metadata["uid"])
                self._registry.delete(Target(RESOURCES["pods"], metadata["namespace"], metadata["name"]), options)
