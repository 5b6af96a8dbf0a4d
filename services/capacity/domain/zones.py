"""In which availability zone a job that is about to be submitted starts soonest: its new disk is made there."""

from collections.abc import Sequence
from datetime import datetime

import msgspec

from services.capacity.domain.estimates import MOST_JOBS, Facts, estimate_each
from services.capacity.domain.free_gpus import FreeGpus, NodeSizes, in_zone
from services.capacity.domain.placement import SchedulingPolicy, SchedulingRound, WaitingJob, gpus_by_user


def soonest_zone(
    zones: Sequence[str],
    job: WaitingJob,
    queue: Sequence[WaitingJob],
    *,
    facts: Facts,
    now: datetime,
    policy: SchedulingPolicy,
) -> str | None:
    """The zone where the job would start soonest, as the last of the queue.

    A zone where it can start at once comes first, then the zone with the earliest estimate, then the one with the most
    free GPUs, then the first that is named.

    Args:
        zones: To choose from.
        job: Its zone is not looked at.
        queue: Every waiting job, in any order.
        facts: Of this moment.
        now: Time of the question.
        policy: The operators'.

    Returns:
        None: no node of any of the zones is large enough for the job.
    """
    fleet = [node for node in facts.nodes if node.gpu_type == job.gpu_type]
    sizes = NodeSizes(fleet)
    choices = [msgspec.structs.replace(job, zone=zone) for zone in zones if sizes.fits(job.gpu_count, zone)]
    if not choices:
        return None
    ahead = sorted((other for other in queue if other.gpu_type == job.gpu_type), key=lambda one: one.order)
    allocations = [lease.allocation(now, policy) for lease in facts.leases]
    before = SchedulingRound(fleet, allocations, gpus_by_user(allocations), now, policy)
    before.schedule(ahead)
    estimates = estimate_each(facts, ahead[:MOST_JOBS], choices, now=now, policy=policy)
    free = FreeGpus(fleet)

    def rank(index: int) -> tuple[bool, bool, float, int, int]:
        choice, estimate = choices[index], estimates[index]
        wait = 0.0 if estimate is None else (estimate.p50 - now).total_seconds()
        placeable = sum(free.by_node[node.name] for node in free.nodes.values() if in_zone(node, choice.zone))
        return before.find(choice) is None, estimate is None, wait, -placeable, index

    return choices[min(range(len(choices)), key=rank)].zone
