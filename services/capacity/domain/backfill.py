"""What the head of a queue is promised, and which jobs may go ahead of it without breaking the promise.

This is EASY backfill (Lifka, "The ANL/IBM SP scheduling system", 1995; Mu'alem and Feitelson, IEEE TPDS 12(6), 2001):
only the head has a reservation. Since each job runs on one node, the reservation is one node: the one where the head
could start first if every lease lasted to its end. Another job may start at once on any other node. On the reserved
node it may start only if it ends in time, or takes GPUs that the head leaves over.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime

import msgspec

from services.capacity.domain.free_gpus import FreeGpus

NEVER = None
"""When GPUs that foreign pods hold come free: nobody knows."""


class Reservation(msgspec.Struct, kw_only=True):
    """The node kept for the head of a queue."""

    node: str
    start: datetime | None
    """When the head starts at the latest; None: nobody knows, so nothing else is started on the node."""
    spare: int
    """GPUs of the node that neither the head nor a job that runs past its start will use."""

    def admits(self, gpu_count: int, ends_at: datetime) -> bool:
        """Whether so many free GPUs of the node may be used until `ends_at` without delaying the head."""
        return self.start is not None and (ends_at <= self.start or gpu_count <= self.spare)

    def use(self, gpu_count: int, ends_at: datetime) -> None:
        """An admitted job starts on the node."""
        if self.start is not None and ends_at > self.start:
            self.spare -= gpu_count


Release = tuple[datetime | None, int]
"""When GPUs come free at the latest (NEVER: not known), and how many."""


def reserve(
    free_gpus: FreeGpus, releases: Mapping[str, Sequence[Release]], gpu_count: int, zone: str | None
) -> Reservation | None:
    """The reservation of a job that fits nowhere now; None: no usable node could ever run it.

    Args:
        free_gpus: What is free now.
        releases: By node, when GPUs that are held there come free.
        gpu_count: GPUs that the head wants.
        zone: Of the head's disk; None: it may run in any.
    """
    best: tuple[datetime, int, str] | None = None
    hopeless: tuple[int, str] | None = None
    for node in free_gpus.suiting(gpu_count, zone):
        # more are held than are allocatable when a device failed under a lease: that many must come free first
        free_now = free_gpus.by_node[node.name] + min(0, node.gpus - node.held)
        start, free = _first_time(free_now, releases.get(node.name, ()), gpu_count)
        if start is None:
            hopeless = min(hopeless or (0, node.name), (-free, node.name))
        elif best is None or (start, free, node.name) < best:
            best = (start, free, node.name)
    if best is not None:
        start, free, name = best
        return Reservation(node=name, start=start, spare=free - gpu_count)
    return None if hopeless is None else Reservation(node=hopeless[1], start=None, spare=0)


def _first_time(free: int, releases: Iterable[Release], gpu_count: int) -> tuple[datetime | None, int]:
    """When so many are free at the latest, and how many are free then; None: that is not known."""
    known = sorted((ends_at, gpus) for ends_at, gpus in releases if ends_at is not None)
    for index, (ends_at, gpus) in enumerate(known):
        free += gpus
        if free >= gpu_count:
            same = sum(more for other, more in known[index + 1 :] if other == ends_at)
            return ends_at, free + same
    return None, free
