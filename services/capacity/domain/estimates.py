"""When waiting jobs will start, as far as the ends of what runs are known."""

import heapq
from collections.abc import Iterable, Sequence
from datetime import datetime
from uuid import UUID

import msgspec

from services.capacity.domain.fleet import Node, by_type
from services.capacity.domain.placement import Waiting, possible, suits

MOST_JOBS = 200
"""Jobs of one type that are looked at; those behind them start when nobody can know."""


class Hold(msgspec.Struct, frozen=True, kw_only=True):
    """GPUs that a job holds on a node."""

    node: str
    gpu_count: int
    ends_at: datetime | None
    """End of its time box; None before it has started."""


def estimate_starts(
    nodes: Iterable[Node], holds: Sequence[Hold], line: Iterable[Waiting], now: datetime
) -> dict[UUID, datetime | None]:
    """Start of each job by the known ends of the leases, first come first served.

    None: it waits for something else than the end of a time box, for an end that is not known, or for a job whose end
    is overdue.
    """
    types = by_type(nodes)
    waiting = sorted(line, key=lambda job: job.order)
    starts: dict[UUID, datetime | None] = {job.job_id: None for job in waiting}
    for gpu_type, fleet in types.items():
        jobs = [job for job in waiting if job.gpu_type == gpu_type and job.ready and possible(fleet, job)]
        starts |= _simulate([node for node in fleet if node.usable], holds, jobs[:MOST_JOBS], now)
    return starts


def _simulate(
    fleet: Sequence[Node], holds: Sequence[Hold], jobs: Sequence[Waiting], now: datetime
) -> dict[UUID, datetime]:
    free = {node.name: node.gpus - node.held for node in fleet}
    ends = [(h.ends_at, h.node, h.gpu_count) for h in holds if h.node in free and h.ends_at and h.ends_at > now]
    heapq.heapify(ends)
    starts: dict[UUID, datetime] = {}
    time = now
    for job in jobs:
        node = _fitting(fleet, free, job)
        while node is None and ends:
            time, released, gpus = heapq.heappop(ends)
            free[released] += gpus
            node = _fitting(fleet, free, job)
        if node is None:
            break
        starts[job.job_id] = time
        free[node] -= job.gpu_count
        heapq.heappush(ends, (time + job.duration, node, job.gpu_count))
    return starts


def _fitting(fleet: Sequence[Node], free: dict[str, int], job: Waiting) -> str | None:
    fitting = [(free[node.name], node.name) for node in fleet if suits(node, job) and free[node.name] >= job.gpu_count]
    return min(fitting)[1] if fitting else None
