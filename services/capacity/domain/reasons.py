"""Why a waiting job waits."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from uuid import UUID

from services.capacity.domain.fleet import Node, by_type
from services.capacity.domain.free_gpus import Sizes, in_zone
from services.capacity.domain.placement import Hold, Terms, Waiting

QUIET = timedelta(seconds=1)
"""Time between two announcements about one job or GPU type: forty jobs that end make no storm of events."""
NEAR = 20
"""Positions that are told every second; further back, every position/NEAR seconds. So a line of any length makes
no more than a few hundred announcements a second, and who is next knows it at once."""
BEHIND = "Waiting for the jobs ahead of it"


def reasons(nodes: Iterable[Node], line: Iterable[Waiting], holds: Iterable[Hold], terms: Terms) -> dict[UUID, str]:
    """Why each job waits, of those that wait for nothing but GPUs."""
    types = by_type(nodes)
    sizes = {gpu_type: Sizes(fleet) for gpu_type, fleet in types.items()}
    users = Counter[int]()
    for hold in holds:
        users[hold.user_id] += hold.gpu_count
    found: dict[UUID, str] = {}
    headed: set[str] = set()
    for job in sorted(line, key=lambda waiting: waiting.order):
        if not job.ready:
            continue
        own = _own_reason(sizes.get(job.gpu_type), job, users, terms)
        if own is None and job.gpu_type not in headed:
            headed.add(job.gpu_type)
            own = _reason_of_head(types[job.gpu_type], job)
        found[job.job_id] = own or BEHIND
    return found


def wanted(gpu_count: int, gpu_type: str) -> str:
    """'8 h100 GPUs'."""
    return f"{gpu_count} {gpu_type} GPU{'s' if gpu_count > 1 else ''}"


def _own_reason(sizes: Sizes | None, job: Waiting, users: Mapping[int, int], terms: Terms) -> str | None:
    if sizes is None:
        return f"The cluster has no {job.gpu_type} nodes now"
    if not sizes.hold(job.gpu_count, job.zone):
        where = f" in zone {job.zone}, where its disk is" if job.zone else ""
        return f"No node has {wanted(job.gpu_count, job.gpu_type)}{where}"
    most = terms.most_gpus_per_user
    if most is not None and users.get(job.user_id, 0) + job.gpu_count > most:
        return f"You hold {users.get(job.user_id, 0)} GPUs, and with this job it would be more than the {most} allowed"
    return None


def _reason_of_head(fleet: Sequence[Node], job: Waiting) -> str:
    usable = [node for node in fleet if node.usable]
    if not Sizes(usable).hold(job.gpu_count, job.zone):
        return f"No {job.gpu_type} node that could run it is ready and schedulable"
    free = sum(node.placeable for node in usable if in_zone(node, job.zone))
    text = wanted(job.gpu_count, job.gpu_type)
    if free >= job.gpu_count:
        return f"Waiting for {text} on one node: the free GPUs are spread over nodes"
    return f"Waiting for {text} to come free"
