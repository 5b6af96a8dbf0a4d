"""The free GPUs of one type, kept so that the fullest node that fits is found without looking at every node."""

from collections.abc import Collection, Iterable, Iterator, Sequence
from heapq import heapify, heappop, heappush

from services.capacity.domain.fleet import Node

ANYWHERE = None
"""Zone of a node whose zone is unknown, and of a job that may run in any."""


class Pool:
    """Usable nodes of one GPU type by zone and free GPUs; changes as GPUs are taken and given back.

    Finding, taking and giving back cost the number of zones and of GPUs per node, not the number of nodes.

    Args:
        fleet: Of one type. Nodes that are not ready or not schedulable are left out.
    """

    def __init__(self, fleet: Iterable[Node]) -> None:
        self.nodes = {node.name: node for node in fleet if node.usable}
        self.free = {node.name: node.placeable for node in self.nodes.values()}
        self._zones = {node.zone for node in self.nodes.values()}
        self._most = max(self.free.values(), default=0)
        # lazily kept: an entry counts only while the node still has so many free GPUs
        self._buckets: dict[tuple[str | None, int], list[str]] = {}
        for name, free in self.free.items():
            self._buckets.setdefault((self.nodes[name].zone, free), []).append(name)
        for bucket in self._buckets.values():
            heapify(bucket)

    def copy(self) -> "Pool":
        """The same state, to be changed apart; costs the number of nodes."""
        twin = Pool(())
        twin.nodes, twin._zones, twin._most = self.nodes, self._zones, self._most
        twin.free = dict(self.free)
        twin._buckets = {key: list(bucket) for key, bucket in self._buckets.items()}
        return twin

    def fullest(self, gpu_count: int, zone: str | None, excluded: Collection[str | None] = ()) -> str | None:
        """The node with the fewest free GPUs that has as many as wanted; None when there is none.

        Args:
            gpu_count: Wanted.
            zone: Where; ANYWHERE: no matter.
            excluded: Nodes that will not do.
        """
        zones = self._zones if zone is ANYWHERE else self._zones & {zone, ANYWHERE}
        for free in range(gpu_count, self._most + 1):
            names = [name for name in (self._first(zone, free, excluded) for zone in zones) if name is not None]
            if names:
                return min(names)
        return None

    def take(self, name: str, gpu_count: int) -> None:
        """GPUs of the node are held."""
        self.free[name] -= gpu_count
        self._enter(name)

    def give(self, name: str, gpu_count: int) -> None:
        """GPUs of the node are free again."""
        self.free[name] += gpu_count
        self._most = max(self._most, self.free[name])
        self._enter(name)

    def suiting(self, gpu_count: int, zone: str | None) -> Iterator[Node]:
        """Nodes that are large enough and in the zone, whatever is free there."""
        return (node for node in self.nodes.values() if node.gpus >= gpu_count and in_zone(node, zone))

    def _first(self, zone: str | None, free: int, excluded: Collection[str | None]) -> str | None:
        bucket = self._buckets.get((zone, free), [])
        passed: list[str] = []
        first = None
        while bucket and first is None:
            if self.free[bucket[0]] != free:
                heappop(bucket)
            elif bucket[0] in excluded:
                passed.append(heappop(bucket))
            else:
                first = bucket[0]
        for name in passed:
            heappush(bucket, name)
        return first

    def _enter(self, name: str) -> None:
        heappush(self._buckets.setdefault((self.nodes[name].zone, self.free[name]), []), name)


def in_zone(node: Node, zone: str | None) -> bool:
    """Whether a job whose disk is in this zone may run on the node; an unknown zone is any zone."""
    return zone is ANYWHERE or node.zone is ANYWHERE or node.zone == zone


class Sizes:
    """What is the largest job that each zone's nodes could hold, were they empty, ready and schedulable.

    Args:
        fleet: Every node of one type, usable or not.
    """

    def __init__(self, fleet: Sequence[Node]) -> None:
        self._largest: dict[str | None, int] = {}
        for node in fleet:
            self._largest[node.zone] = max(self._largest.get(node.zone, 0), node.gpus)
        self._overall = max(self._largest.values(), default=0)

    def hold(self, gpu_count: int, zone: str | None) -> bool:
        """Whether a job of this size could ever start here."""
        if zone is ANYWHERE:
            return gpu_count <= self._overall
        return gpu_count <= max(self._largest.get(zone, 0), self._largest.get(ANYWHERE, 0))
