"""What is told to those who wait: position, estimate, reason."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from uuid import UUID

import msgspec

from services.capacity.domain.fleet import Node, by_type
from services.capacity.domain.placement import Waiting, possible, suits

QUIET = timedelta(seconds=1)
"""Time between two announcements about one job or GPU type: forty jobs that end make no storm of events."""


class Notice(msgspec.Struct, frozen=True, kw_only=True):
    """What a waiting job is told."""

    position: int
    """1 is the head of the line of its GPU type."""
    estimated_start_at: datetime | None
    reason: str


class Told(msgspec.Struct, frozen=True, kw_only=True):
    """The last notice of a job."""

    notice: Notice | None = None
    """None: nothing was told since it stands in line."""
    at: datetime | None = None


def notices(
    nodes: Iterable[Node], line: Iterable[Waiting], starts: Mapping[UUID, datetime | None]
) -> dict[UUID, Notice]:
    """Notice of each job in line that waits for GPUs; one that waits for its disk counts, but is told nothing."""
    types = by_type(nodes)
    length: dict[str, int] = {}
    found: dict[UUID, Notice] = {}
    held_up: set[str] = set()
    for job in sorted(line, key=lambda waiting: waiting.order):
        position = length[job.gpu_type] = length.get(job.gpu_type, 0) + 1
        if not job.ready:
            continue
        reason = _reason(types.get(job.gpu_type, []), job, behind=job.gpu_type in held_up)
        if possible(types.get(job.gpu_type, []), job):
            held_up.add(job.gpu_type)
        found[job.job_id] = Notice(position=position, estimated_start_at=starts.get(job.job_id), reason=reason)
    return found


def due(now: datetime, told: Told, notice: Notice) -> bool:
    """Whether the job is to be told now: something changed, and it was not told within the last second."""
    if told.notice == notice:
        return False
    return told.notice is None or told.at is None or now - told.at >= QUIET


def _reason(fleet: Sequence[Node], job: Waiting, *, behind: bool) -> str:
    wanted = f"{job.gpu_count} {job.gpu_type} GPU{'s' if job.gpu_count > 1 else ''}"
    if not fleet:
        return f"The cluster has no {job.gpu_type} nodes now"
    if not possible(fleet, job):
        where = f" in zone {job.zone}, where its disk is" if job.zone else ""
        return f"No node has {wanted}{where}"
    if behind:
        return "Waiting for the jobs ahead of it"
    if not any(node.usable and suits(node, job) for node in fleet):
        return f"No {job.gpu_type} node that could run it is ready and schedulable"
    if sum(node.placeable for node in fleet) >= job.gpu_count:
        return f"Waiting for {wanted} on one node: the free GPUs are spread over nodes"
    return f"Waiting for {wanted} to come free"
