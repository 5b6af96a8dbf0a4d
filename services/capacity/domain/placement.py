"""Which waiting job starts where: first come first served per GPU type, packed."""

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from uuid import UUID

import msgspec

from services.capacity.domain.fleet import Node, by_type


class Waiting(msgspec.Struct, frozen=True, kw_only=True):
    """A job in the line."""

    job_id: UUID
    gpu_type: str
    gpu_count: int
    submitted_at: datetime
    duration: timedelta
    ready: bool
    """False: it waits for its disk; it keeps its place and holds nobody up."""
    zone: str | None = None
    """Where its disk is; None: anywhere."""

    @property
    def order(self) -> tuple[datetime, UUID]:
        """Place in the line."""
        return self.submitted_at, self.job_id


class Placement(msgspec.Struct, frozen=True, kw_only=True):
    job_id: UUID
    node: str
    gpu_indexes: tuple[int, ...]


def place(nodes: Iterable[Node], line: Iterable[Waiting]) -> list[Placement]:
    """Leases to make now, in the order of the line.

    A job that does not fit holds up those behind it that want the same GPU type. One that could not start on any node
    there is, were it empty and well, holds up nobody: else a broken GPU would close the line of its type.
    """
    types = by_type(nodes)
    placements: list[Placement] = []
    closed: set[str] = set()
    for job in sorted(line, key=lambda waiting: waiting.order):
        fleet = types.get(job.gpu_type, [])
        if job.gpu_type in closed or not job.ready or not possible(fleet, job):
            continue
        index = _fullest_that_fits(fleet, job)
        if index is None:
            closed.add(job.gpu_type)
            continue
        node = fleet[index]
        chosen = node.free_indexes(job.gpu_count)
        placements.append(Placement(job_id=job.job_id, node=node.name, gpu_indexes=chosen))
        fleet[index] = msgspec.structs.replace(node, leased=tuple(sorted((*node.leased, *chosen))))
    return placements


def possible(fleet: Sequence[Node], job: Waiting) -> bool:
    """Whether the job could start on a node of this fleet, were it empty, ready and schedulable."""
    return any(suits(node, job) for node in fleet)


def suits(node: Node, job: Waiting) -> bool:
    """Whether the node is large enough and where the job's disk is; an unknown zone is any zone."""
    return node.gpus >= job.gpu_count and (job.zone is None or node.zone is None or node.zone == job.zone)


def _fullest_that_fits(fleet: Sequence[Node], job: Waiting) -> int | None:
    fitting = [
        (node.placeable, node.name, index)
        for index, node in enumerate(fleet)
        if suits(node, job) and node.placeable >= job.gpu_count
    ]
    return min(fitting)[2] if fitting else None
