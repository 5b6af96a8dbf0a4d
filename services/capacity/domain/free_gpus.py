"""The free GPUs of one type, indexed so that finding the fullest node that fits does not look at every node."""

from collections.abc import Collection, Iterable, Iterator, Sequence
from heapq import heapify, heappop, heappush

from services.capacity.domain.fleet import Node

ANYWHERE = None
"""Zone of a node whose zone is unknown, and of a job that may run in any."""


class FreeGpus:
    """The usable nodes of one GPU type, indexed by zone and by number of free GPUs.

    Finding a node, taking its GPUs and giving them back each cost the number of zones and of GPUs per node, however
    many nodes there are.

    Args:
        fleet: Nodes of one type. Those that are not ready or not schedulable are left out.
    """

    def __init__(self, fleet: Iterable[Node]) -> None:
        self.nodes = {node.name: node for node in fleet if node.usable}
        self.by_node = {node.name: node.placeable for node in self.nodes.values()}
        self._zones = {node.zone for node in self.nodes.values()}
        self._most = max(self.by_node.values(), default=0)
        # cleaned up lazily: an entry counts only while its node still has so many free GPUs
        self._buckets: dict[tuple[str | None, int], list[str]] = {}
        for name, free in self.by_node.items():
            self._buckets.setdefault((self.nodes[name].zone, free), []).append(name)
        for bucket in self._buckets.values():
            heapify(bucket)

    def copy(self) -> "FreeGpus":
        """The same state, to be changed independently; costs the number of nodes."""
        twin = FreeGpus(())
        twin.nodes, twin._zones, twin._most = self.nodes, self._zones, self._most
        twin.by_node = dict(self.by_node)
        twin._buckets = {key: list(bucket) for key, bucket in self._buckets.items()}
        return twin

    def fullest(self, gpu_count: int, zone: str | None, excluded: Collection[str | None] = ()) -> str | None:
        """Of the nodes with enough free GPUs, the one with the fewest; None: no node has enough.

        Args:
            gpu_count: GPUs wanted.
            zone: Only nodes of this zone, and those whose zone is unknown; ANYWHERE: all nodes.
            excluded: Nodes to leave out.
        """
        zones = self._zones if zone is ANYWHERE else self._zones & {zone, ANYWHERE}
        for free in range(gpu_count, self._most + 1):
            names = [name for name in (self._first(zone, free, excluded) for zone in zones) if name is not None]
            if names:
                return min(names)
        return None

    def take(self, name: str, gpu_count: int) -> None:
        """So many more GPUs of the node are held."""
        self.by_node[name] -= gpu_count
        self._enter(name)

    def give(self, name: str, gpu_count: int) -> None:
        """So many GPUs of the node come free."""
        self.by_node[name] += gpu_count
        self._most = max(self._most, self.by_node[name])
        self._enter(name)

    def suiting(self, gpu_count: int, zone: str | None) -> Iterator[Node]:
        """The nodes that are large enough and in the zone, whatever is free there now."""
        return (node for node in self.nodes.values() if node.gpus >= gpu_count and in_zone(node, zone))

    def _first(self, zone: str | None, free: int, excluded: Collection[str | None]) -> str | None:
        bucket = self._buckets.get((zone, free), [])
        passed: list[str] = []
        first = None
        while bucket and first is None:
            if self.by_node[bucket[0]] != free:
                heappop(bucket)
            elif bucket[0] in excluded:
                passed.append(heappop(bucket))
            else:
                first = bucket[0]
        for name in passed:
            heappush(bucket, name)
        return first

    def _enter(self, name: str) -> None:
        heappush(self._buckets.setdefault((self.nodes[name].zone, self.by_node[name]), []), name)


def in_zone(node: Node, zone: str | None) -> bool:
    """Whether a job whose disk is in this zone may run on the node; an unknown zone is any zone."""
    return zone is ANYWHERE or node.zone is ANYWHERE or node.zone == zone


class NodeSizes:
    """The largest job that a node of each zone could run if it were empty, ready and schedulable.

    Args:
        fleet: Every node of one type, usable or not.
    """

    def __init__(self, fleet: Sequence[Node]) -> None:
        self._largest: dict[str | None, int] = {}
        for node in fleet:
            self._largest[node.zone] = max(self._largest.get(node.zone, 0), node.gpus)
        self._overall = max(self._largest.values(), default=0)

    def fits(self, gpu_count: int, zone: str | None) -> bool:
        """Whether a job of this size could ever start here."""
        if zone is ANYWHERE:
            return gpu_count <= self._overall
        return gpu_count <= max(self._largest.get(zone, 0), self._largest.get(ANYWHERE, 0))
