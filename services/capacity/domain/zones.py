"""In which availability zone a job that is about to be submitted starts soonest: its new disk is made there."""

from collections.abc import Sequence
from datetime import datetime

import msgspec

from services.capacity.domain.estimates import MOST_JOBS, Facts, estimate_each
from services.capacity.domain.fleet import Node
from services.capacity.domain.free_gpus import NodeSizes, in_zone
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
    estimates = estimate_each(facts, ahead[:MOST_JOBS], choices, now=now, policy=policy)
    before = _round_after(ahead, fleet, facts, now, policy)
    ranks = [
        (
            before.find(choice) is None,
            estimate is None,
            estimate and estimate.p50,
            -_placeable(fleet, choice.zone),
            index,
        )
        for index, (choice, estimate) in enumerate(zip(choices, estimates, strict=True))
    ]
    return choices[min(ranks)[-1]].zone


def _round_after(
    ahead: Sequence[WaitingJob], fleet: Sequence[Node], facts: Facts, now: datetime, policy: SchedulingPolicy
) -> SchedulingRound:
    allocations = [lease.allocation(now, policy) for lease in facts.leases]
    made = SchedulingRound(fleet, allocations, gpus_by_user(allocations), now, policy)
    made.schedule(ahead)
    return made


def _placeable(fleet: Sequence[Node], zone: str | None) -> int:
    return sum(node.placeable for node in fleet if in_zone(node, zone))
