"""What each GPU of a node is to somebody who looks at the fleet."""

from collections.abc import Iterable
from enum import StrEnum
from uuid import UUID

import msgspec

from services.capacity.domain.fleet import Node


class GpuState(StrEnum):
    FREE = "free"
    OWN = "own"
    """Leased to a job of who asks."""
    OTHERS = "others"
    """Leased to somebody else's job."""
    FOREIGN = "foreign"
    """Held by a pod that is no job's."""
    WITHHELD = "withheld"
    """Free, but without the CPU or memory that a job would need."""


class Holder(msgspec.Struct, frozen=True, kw_only=True):
    """Who has the lease on a GPU."""

    node: str
    gpu_index: int
    job_id: UUID
    user_id: int


class ShownGpu(msgspec.Struct, frozen=True, kw_only=True):
    state: GpuState
    job_id: UUID | None = None
    """None: it is leased to nobody, or not for the asker to know."""


def gpus_of(node: Node, holders: Iterable[Holder], *, asker: int, sees_all: bool) -> list[ShownGpu]:
    """The GPUs of a node, one for each device that is allocatable or leased.

    Kubernetes does not say which devices foreign pods hold: they are counted from the last that is not leased.

    Args:
        node: With its counts.
        holders: Of its leases.
        asker: User id of who asks.
        sees_all: Whether they may know whose jobs are there: operators.
    """
    leased = {holder.gpu_index: holder for holder in holders}
    size = max([node.gpus, *(index + 1 for index in leased)])
    unleased = [index for index in range(size) if index not in leased]
    # more than allocatable are there when a device failed under a lease; what is left of the others counts first
    taken = [GpuState.FOREIGN] * node.foreign + [GpuState.WITHHELD] * node.withheld
    states = dict(zip(reversed(unleased), taken, strict=False))
    return [
        _leased(leased[index], asker, sees_all=sees_all)
        if index in leased
        else ShownGpu(state=states.get(index, GpuState.FREE))
        for index in range(size)
    ]


def _leased(holder: Holder, asker: int, *, sees_all: bool) -> ShownGpu:
    is_own = holder.user_id == asker
    state = GpuState.OWN if is_own else GpuState.OTHERS
    return ShownGpu(state=state, job_id=holder.job_id if is_own or sees_all else None)
