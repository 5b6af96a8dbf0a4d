"""The scheduler: gives every pending pod a node, and says why when it cannot."""

import asyncio
from collections import defaultdict
from decimal import Decimal

from deploy.local.cluster.events import EventRecorder
from deploy.local.cluster.machinery.objects import Object, now, timestamp
from deploy.local.cluster.registry.registry import Registry, Target
from deploy.local.cluster.registry.resources import RESOURCES
from deploy.local.cluster.registry.store import Change
from deploy.local.cluster.scheduler.filters import choose
from deploy.local.cluster.scheduler.requests import occupies, pod_requests

NAME = "default-scheduler"


class Scheduler:
    """Woken by changes of pods and nodes; each pass looks at every pod that waits, oldest first."""

    def __init__(self, registry: Registry, events: EventRecorder) -> None:
        self._registry, self._events = registry, events
        self._wake = asyncio.Event()

    def on_change(self, change: Change) -> None:
        """Subscribes to the store."""
        if change.resource in {"pods", "nodes"}:
            self._wake.set()

    async def run(self) -> None:
        """Runs until cancelled."""
        while True:
            self.schedule_all()
            await self._wake.wait()
            self._wake.clear()

    def schedule_all(self) -> None:
        """One pass."""
        store = self._registry.store
        waiting = [pod for pod in store.values("pods") if not pod["spec"].get("nodeName") and _is_ours(pod)]
        if not waiting:
            return
        used: dict[str, dict[str, Decimal]] = defaultdict(lambda: defaultdict(Decimal))
        for pod in store.values("pods"):
            node = pod["spec"].get("nodeName")
            if node and occupies(pod):
                _add(used[node], pod)
        nodes = [record.value for record in store.records("nodes")]
        waiting.sort(key=lambda pod: (-pod["spec"]["priority"], int(pod["metadata"]["resourceVersion"])))
        for pod in waiting:
            decision = choose(pod, nodes, used)
            if decision.node is None:
                self._report(pod, decision.message)
            else:
                _add(used[decision.node], pod)
                bind(self._registry, pod, decision.node)
                name = f"{pod['metadata']['namespace']}/{pod['metadata']['name']}"
                message = f"Successfully assigned {name} to {decision.node}"
                self._events.record(pod, "Normal", "Scheduled", message, component=NAME)

    def _report(self, pod: Object, message: str) -> None:
        def mark(value: Object) -> None:
            _set_condition(value, "False", "Unschedulable", message)

        before = self._registry.store.revision
        self._registry.modify(_target(pod), mark)
        if self._registry.store.revision != before:
            self._events.record(pod, "Warning", "FailedScheduling", message, component=NAME)


def bind(registry: Registry, pod: Object, node: str) -> None:
    """Assigns a pod to a node, as a POST of a Binding does."""

    def assign(value: Object) -> None:
        value["spec"]["nodeName"] = node
        _set_condition(value, "True")

    registry.modify(_target(pod), assign)


def _target(pod: Object) -> Target:
    return Target(RESOURCES["pods"], pod["metadata"]["namespace"], pod["metadata"]["name"])


def _is_ours(pod: Object) -> bool:
    return (
        pod["spec"]["schedulerName"] == NAME
        and "deletionTimestamp" not in pod["metadata"]
        and pod["status"]["phase"] == "Pending"
    )


def _add(used: dict[str, Decimal], pod: Object) -> None:
    for name, amount in pod_requests(pod["spec"]).items():
        used[name] += amount


def _set_condition(value: Object, status: str, reason: str = "", message: str = "") -> None:
    conditions = value["status"].setdefault("conditions", [])
    old = next((c for c in conditions if c["type"] == "PodScheduled"), None)
    changed = old is None or old["status"] != status
    since = timestamp(now()) if changed or old is None else old["lastTransitionTime"]
    new: Object = {"type": "PodScheduled", "status": status, "lastProbeTime": None, "lastTransitionTime": since}
    if reason:
        new |= {"reason": reason, "message": message}
    value["status"]["conditions"] = [c for c in conditions if c["type"] != "PodScheduled"] + [new]
