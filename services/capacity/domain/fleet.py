"""Nodes, and what holds their GPUs."""

from collections.abc import Iterable
from datetime import datetime
from uuid import UUID

import msgspec

_INEXACT = 1e-9
"""By so much of a GPU the sums of what pods ask for may be off, as they are of fractions that are not exact."""


class RequestsPerGpu(msgspec.Struct, frozen=True, kw_only=True):
    """What a job's pod asks for with each GPU; None: nothing, so it never runs short."""

    cpu: float | None = None
    """Cores."""
    memory_bytes: float | None = None

    def gpus_by_cpu(self, cores: float) -> float | None:
        """For how many GPUs so many cores are enough."""
        return cores / self.cpu if self.cpu else None

    def gpus_by_memory(self, size_bytes: float) -> float | None:
        """For how many GPUs so much memory is enough."""
        return size_bytes / self.memory_bytes if self.memory_bytes else None


class NodeFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What Kubernetes says about one node."""

    name: str
    uid: str
    """Changes when a node of the same name joins anew."""
    resource_version: int
    """Of the Node object; a higher one is newer."""
    instance_type: str | None
    gpu_type: str | None
    """None: the node is of no known type, and no job runs there."""
    zone: str | None
    gpus: int
    """Allocatable."""
    ready: bool
    schedulable: bool
    """Neither cordoned nor tainted against jobs' pods."""
    gpus_by_cpu: float | None = None
    """For how many GPUs of jobs its CPU is enough; None: jobs ask for no CPU."""
    gpus_by_memory: float | None = None
    """The same for its memory."""

    @property
    def relevant(self) -> bool:
        """Whether it has, or will have, GPUs."""
        return self.gpu_type is not None or self.gpus > 0


class GpuPod(msgspec.Struct, frozen=True, kw_only=True):
    """Any pod that holds GPUs of a node, or CPU or memory that jobs' pods would need."""

    uid: str
    resource_version: int
    name: str
    """namespace/name."""
    node: str
    gpus: int
    job_id: UUID | None
    """The job that it belongs to; None: it is no job's."""
    gpus_by_cpu: float | None = None
    """For how many GPUs of jobs the CPU that it asks for would be enough; None: jobs ask for no CPU."""
    gpus_by_memory: float | None = None
    """The same for its memory."""


class Node(msgspec.Struct, frozen=True, kw_only=True):
    """A node and how its GPUs are used, in one snapshot."""

    name: str
    gpu_type: str
    gpus: int
    """Allocatable."""
    ready: bool
    schedulable: bool
    zone: str | None = None
    leased: tuple[int, ...] = ()
    """Indexes of leased GPUs, ascending."""
    foreign: int = 0
    """GPUs held by foreign pods, which have no lease."""
    gpus_by_free_cpu: float | None = None
    """For how many GPUs of jobs, leased ones included, foreign pods leave enough CPU; None: jobs ask for no CPU."""
    gpus_by_free_memory: float | None = None
    """The same for memory."""

    @property
    def usable(self) -> bool:
        """Whether new pods may start there."""
        return self.ready and self.schedulable

    @property
    def held(self) -> int:
        """GPUs leased or held by foreign pods; more than `gpus` when a device failed under a lease."""
        return len(self.leased) + self.foreign

    @property
    def withheld(self) -> int:
        """Free GPUs that no job could use, since foreign pods hold the CPU or memory that it would need."""
        left = (self.gpus_by_free_cpu, self.gpus_by_free_memory)
        enough_for = [int(gpus + _INEXACT) for gpus in left if gpus is not None]
        free = max(0, self.gpus - self.held)
        return max(0, free - max(0, min(enough_for) - len(self.leased))) if enough_for else 0

    @property
    def in_use(self) -> int:
        """GPUs held or withheld, among the allocatable ones."""
        return min(self.held + self.withheld, self.gpus)

    @property
    def placeable(self) -> int:
        """GPUs that a job could start on now."""
        return self.gpus - self.in_use if self.usable else 0

    def free_indexes(self, count: int) -> tuple[int, ...]:
        """The lowest `count` indexes that are not leased."""
        taken = set(self.leased)
        return tuple(index for index in range(self.gpus) if index not in taken)[:count]


class Fleet(msgspec.Struct, frozen=True, kw_only=True):
    """All nodes of known types that are not gone, in one snapshot."""

    mark: str
    """Another one after each change of a node, of a lease or of a pod."""
    nodes: tuple[Node, ...]
    """By name."""
    changed_at: datetime | None
    """When the latest of these changes was seen; None: there was none yet."""


def by_type(nodes: Iterable[Node]) -> dict[str, list[Node]]:
    """Nodes of each GPU type."""
    types: dict[str, list[Node]] = {}
    for node in nodes:
        types.setdefault(node.gpu_type, []).append(node)
    return types
