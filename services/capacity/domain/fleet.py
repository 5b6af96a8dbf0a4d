"""Nodes and what holds their GPUs, as the placer and the answers see them."""

from collections.abc import Iterable
from uuid import UUID

import msgspec


class NodeFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What Kubernetes says of one node."""

    name: str
    uid: str
    """Changes when a node of the same name joins anew."""
    resource_version: int
    """Of the Node object; higher is newer."""
    instance_type: str | None
    gpu_type: str | None
    """None: a node of no known type; nothing is placed there."""
    zone: str | None
    gpus: int
    """Allocatable."""
    ready: bool
    schedulable: bool
    """Neither cordoned nor tainted against our pods."""
    cpu_worth: float | None = None
    """For how many GPUs of our pods its CPU is enough; None: our pods ask for none."""
    memory_worth: float | None = None
    """Likewise its memory."""

    @property
    def relevant(self) -> bool:
        """Whether it has, or will have, GPUs."""
        return self.gpu_type is not None or self.gpus > 0


class GpuPod(msgspec.Struct, frozen=True, kw_only=True):
    """A pod that holds GPUs of a node, whoever's it is; or CPU or memory that our pods would need."""

    uid: str
    resource_version: int
    name: str
    """namespace/name."""
    node: str
    gpus: int
    job_id: UUID | None
    """Job that it is of; None: not ours."""
    cpu_worth: float | None = None
    """For how many GPUs of our pods the CPU that it asks for would be enough; None: our pods ask for none."""
    memory_worth: float | None = None
    """Likewise its memory."""


class Node(msgspec.Struct, frozen=True, kw_only=True):
    """A node and the use of its GPUs, in one snapshot."""

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
    """GPUs held by pods without a lease."""
    cpu_room: float | None = None
    """For how many GPUs of our pods, leased ones included, foreign pods leave CPU; None: it does not matter."""
    memory_room: float | None = None
    """Likewise memory."""

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
        """Free GPUs that no pod of ours could use, since foreign pods hold the CPU or memory that it would need."""
        rooms = [int(room) for room in (self.cpu_room, self.memory_room) if room is not None]
        free = max(0, self.gpus - self.held)
        return max(0, free - max(0, min(rooms) - len(self.leased))) if rooms else 0

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


def by_type(nodes: Iterable[Node]) -> dict[str, list[Node]]:
    """Nodes of each GPU type."""
    types: dict[str, list[Node]] = {}
    for node in nodes:
        types.setdefault(node.gpu_type, []).append(node)
    return types
