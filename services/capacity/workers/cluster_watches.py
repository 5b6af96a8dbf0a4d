"""The watches of nodes and pods. Each turn lists everything, then watches for a while: so each is a full resync.

Whatever breaks on the way raises and changes nothing, and the loop begins again with a list. A node is marked as gone
only when Kubernetes answers a live GET with 404. A list that lacks it, or an event, is only a reason to ask.
"""

import time
from contextlib import aclosing
from datetime import datetime

import msgspec
from prometheus_client import Gauge

from services.capacity.adapters.kubernetes import Cluster, version_of
from services.capacity.adapters.kubernetes_objects import NodeObject, PodObject, gpu_pod, node_facts
from services.capacity.context import Context
from services.capacity.domain.fleet import GpuPod, NodeFacts
from services.capacity.operations.record_cluster import (
    PodListing,
    confirm_node_gone,
    forget_pod,
    list_present_nodes,
    record_nodes,
    record_pod_listing,
    record_pods,
)
from shared.background import Loop
from shared.clock import Stopwatch
from shared.kubernetes import WatchEvent

_LISTING_SECONDS = 30.0
_watch_age = Gauge(
    "gpudev_watch_age_seconds", "Time since Kubernetes was last heard of, by what is watched", ["resource"]
)


class Watch:
    """What both watches share: their loop, and how long Kubernetes has been silent.

    Args:
        context: The service's.
        cluster: What is watched.
        stopwatch: Tells how long it has been silent.
    """

    resource = ""

    def __init__(self, context: Context, cluster: Cluster, *, stopwatch: Stopwatch = time.monotonic) -> None:
        self._context = context
        self._stopwatch = stopwatch
        self._cluster = cluster
        self._settings = context.settings
        self._heard_at = self._stopwatch()
        _watch_age.labels(self.resource).set_function(self.age_seconds)
        seconds = self._settings.watch_seconds
        self.loop = Loop(
            f"watch_{self.resource}",
            self._turn,
            period_seconds=0.05,
            turn_seconds=seconds + _LISTING_SECONDS,
            stale_seconds=2 * seconds + 15.0,
        )

    def age_seconds(self) -> float:
        """Time since Kubernetes was last heard of: by a list, an event, or a watch that ended without breaking."""
        return self._stopwatch() - self._heard_at

    def _heard(self) -> datetime:
        self._heard_at = self._stopwatch()
        return self._context.clock()

    async def _turn(self) -> bool:
        raise NotImplementedError


class NodeWatch(Watch):
    """Keeps the table of nodes equal to the cluster's."""

    resource = "nodes"

    async def _turn(self) -> bool:
        listing = await self._cluster.list_nodes()
        facts = [self._facts(node) for node in listing.items]
        await record_nodes(self._context, facts, complete=True, now=self._heard())
        await self._check_missing({fact.name for fact in facts})
        last = {fact.name: fact for fact in facts}
        events = self._cluster.watch_nodes(listing.resource_version, self._settings.watch_seconds)
        async with aclosing(events):
            async for event in events:
                await self._apply(event, last, self._heard())
        self._heard()
        return True

    async def _apply(self, event: WatchEvent[NodeObject], last: dict[str, NodeFacts], now: datetime) -> None:
        fact = self._facts(event.object)
        if event.type == "DELETED":
            last.pop(fact.name, None)
            await self._check_gone(fact.name, fact.uid)
        elif _without_version(last.get(fact.name)) != _without_version(fact):
            last[fact.name] = fact
            await record_nodes(self._context, [fact], complete=False, now=now)

    async def _check_missing(self, listed: set[str]) -> None:
        present = await list_present_nodes(self._context.database)
        for name in present.keys() - listed:
            await self._check_gone(name, present[name])

    async def _check_gone(self, name: str, uid: str) -> None:
        if await self._cluster.node_uid(name) is None:
            await confirm_node_gone(self._context, name=name, uid=uid, now=self._context.clock())

    def _facts(self, node: NodeObject) -> NodeFacts:
        settings = self._settings
        return node_facts(node, settings.gpu_resource, settings.requests_per_gpu(), settings.tolerations())


class PodWatch(Watch):
    """Keeps the table of pods that hold GPUs equal to the cluster's."""

    resource = "pods"

    async def _turn(self) -> bool:
        listing = await self._cluster.list_pods()
        pods = [pod for pod in map(self._holder, listing.items) if pod is not None]
        found = PodListing(pods=tuple(pods), resource_version=version_of(listing))
        await record_pod_listing(self._context, found, now=self._heard())
        held = {pod.uid: pod for pod in pods}
        events = self._cluster.watch_pods(listing.resource_version, self._settings.watch_seconds)
        async with aclosing(events):
            async for event in events:
                await self._apply(event, held, self._heard())
        self._heard()
        return True

    async def _apply(self, event: WatchEvent[PodObject], held: dict[str, GpuPod], now: datetime) -> None:
        metadata = event.object.metadata
        pod = None if event.type == "DELETED" else self._holder(event.object)
        if pod is not None:
            if _without_version(held.get(pod.uid)) != _without_version(pod):
                await record_pods(self._context, [pod], now=now)
            held[pod.uid] = pod
        elif held.pop(metadata.uid, None) is not None:
            await forget_pod(self._context, uid=metadata.uid, resource_version=metadata.version)

    def _holder(self, pod: PodObject) -> GpuPod | None:
        settings = self._settings
        return gpu_pod(pod, settings.gpu_resource, settings.namespace, settings.requests_per_gpu())


def _without_version(fact: NodeFacts | GpuPod | None) -> object:
    # a heartbeat changes nothing but the version, and is not written
    return fact and msgspec.structs.replace(fact, resource_version=0)
