"""Which jobs the scheduler should have placed by now: its own rule is not asked, so that a fault in it shows too."""

from collections import Counter
from collections.abc import Iterable
from uuid import UUID

from services.capacity.domain.fleet import Node, by_type
from services.capacity.domain.free_gpus import in_zone
from services.capacity.domain.placement import SchedulingPolicy, WaitingJob


def startable_heads(
    nodes: Iterable[Node], queue: Iterable[WaitingJob], users: Counter[int], policy: SchedulingPolicy
) -> list[UUID]:
    """The first job of each type's queue, where GPUs are free for it: nothing stands between it and its lease.

    Args:
        nodes: With what holds their GPUs.
        queue: The beginning of each type's.
        users: GPUs that each user holds.
        policy: The operators'.
    """
    fleets, found, seen = by_type(nodes), [], set[str]()
    most = policy.most_gpus_per_user
    for job in sorted(queue, key=lambda one: one.order):
        fleet = [node for node in fleets.get(job.gpu_type, ()) if in_zone(node, job.zone)]
        beyond = most is not None and users[job.user_id] + job.gpu_count > most
        if job.gpu_type in seen or not job.ready or beyond or all(node.gpus < job.gpu_count for node in fleet):
            continue
        seen.add(job.gpu_type)
        if any(node.placeable >= job.gpu_count for node in fleet):
            found.append(job.job_id)
    return found
