"""The watches: list, then watch, then again; each turn is a full resync.

What breaks on the way raises, changes nothing, and the loop starts over with a list. A node is taken out only when a
live GET says 404: a list that lacks it, a broken watch or an event are no more than a reason to ask.
"""

import time
from contextlib import aclosing
from datetime import UTC, datetime

import msgspec
from prometheus_client import Gauge

from services.capacity.adapters.kubernetes import Change, Cluster, version_of
from services.capacity.domain.fleet import GpuPod, NodeFacts
from services.capacity.domain.kubernetes_objects import NodeObject, PodObject, gpu_pod, node_facts
from services.capacity.operations.record import (
    PodListing,
    confirm_node_gone,
    forget_pod,
    list_present_nodes,
    record_nodes,
    record_pod_listing,
    record_pods,
)
from services.capacity.settings import CapacitySettings
from shared.background import Loop
from shared.database import Database
from shared.messaging.outbox import Wakes

_LISTING_SECONDS = 30.0
_watch_age = Gauge(
    "gpudev_watch_age_seconds", "Time since Kubernetes was last heard of, by what is watched", ["resource"]
)


class Watch:
    """What both watches share: their loop and their age.

    Args:
        cluster: Where to read.
        database: Where facts go.
        settings: Names and times.
        relay: Woken when events were recorded.
        placer: Woken when facts changed.
    """

    resource = ""

    def __init__(
        self, *, cluster: Cluster, database: Database, settings: CapacitySettings, relay: Wakes, placer: Wakes
    ) -> None:
        self._cluster = cluster
        self._database = database
        self._settings = settings
        self._relay = relay
        self._placer = placer
        self._heard_at = time.monotonic()
        _watch_age.labels(self.resource).set_function(self.age_seconds)
        seconds = settings.watch_seconds
        self.loop = Loop(
            f"watch_{self.resource}",
            self._turn,
            period_seconds=0.05,
            turn_seconds=seconds + _LISTING_SECONDS,
            stale_seconds=2 * seconds + 15.0,
        )

    def age_seconds(self) -> float:
        """Time since the cluster was last heard of: a list, an event, or the end of a watch that did not break."""
        return time.monotonic() - self._heard_at

    def _heard(self) -> datetime:
        self._heard_at = time.monotonic()
        return datetime.now(UTC)

    async def _turn(self) -> bool:
        raise NotImplementedError


class NodeWatch(Watch):
    """Keeps the table of nodes equal to the cluster's."""

    resource = "nodes"

    async def _turn(self) -> bool:
        listing = await self._cluster.list_nodes()
        facts = [self._facts(node) for node in listing.items]
        await self._record(facts, complete=True)
        await self._check_missing({fact.name for fact in facts})
        last = {fact.name: fact for fact in facts}
        changes = self._cluster.watch_nodes(listing.resource_version, self._settings.watch_seconds)
        async with aclosing(changes):
            async for change in changes:
                self._heard()
                await self._follow(change, last)
        self._heard()
        return True

    async def _follow(self, change: Change[NodeObject], last: dict[str, NodeFacts]) -> None:
        fact = self._facts(change.object)
        if change.deleted:
            last.pop(fact.name, None)
            await self._check_gone(fact.name, fact.uid)
        elif _without_version(last.get(fact.name)) != _without_version(fact):
            last[fact.name] = fact
            await self._record([fact], complete=False)

    async def _record(self, facts: list[NodeFacts], *, complete: bool) -> None:
        await record_nodes(
            self._database, facts, complete=complete, now=self._heard(), relay=self._relay, placer=self._placer
        )

    async def _check_missing(self, listed: set[str]) -> None:
        present = await list_present_nodes(self._database)
        for name in present.keys() - listed:
            await self._check_gone(name, present[name])

    async def _check_gone(self, name: str, uid: str) -> None:
        if await self._cluster.node_uid(name) is None:
            now = datetime.now(UTC)
            await confirm_node_gone(self._database, name=name, uid=uid, now=now, relay=self._relay, placer=self._placer)

    def _facts(self, node: NodeObject) -> NodeFacts:
        return node_facts(node, self._settings.gpu_resource, self._settings.needs())


class PodWatch(Watch):
    """Keeps the table of pods that hold GPUs equal to the cluster's."""

    resource = "pods"

    async def _turn(self) -> bool:
        listing = await self._cluster.list_pods()
        pods = [pod for pod in map(self._holding, listing.items) if pod is not None]
        found = PodListing(pods=tuple(pods), resource_version=version_of(listing))
        await record_pod_listing(self._database, found, now=self._heard(), placer=self._placer)
        held = {pod.uid: pod for pod in pods}
        changes = self._cluster.watch_pods(listing.resource_version, self._settings.watch_seconds)
        async with aclosing(changes):
            async for change in changes:
                await self._follow(change, held, self._heard())
        self._heard()
        return True

    async def _follow(self, change: Change[PodObject], held: dict[str, GpuPod], now: datetime) -> None:
        metadata = change.object.metadata
        pod = None if change.deleted else self._holding(change.object)
        if pod is not None:
            if _without_version(held.get(pod.uid)) != _without_version(pod):
                await record_pods(self._database, [pod], now=now, placer=self._placer)
            held[pod.uid] = pod
        elif held.pop(metadata.uid, None) is not None:
            await forget_pod(self._database, uid=metadata.uid, resource_version=metadata.version, placer=self._placer)

    def _holding(self, pod: PodObject) -> GpuPod | None:
        settings = self._settings
        return gpu_pod(pod, settings.gpu_resource, settings.namespace, settings.needs())


def _without_version(fact: NodeFacts | GpuPod | None) -> object:
    # heartbeats change nothing else: they are not worth a write
    return fact and msgspec.structs.replace(fact, resource_version=0)
