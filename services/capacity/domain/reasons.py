"""Why a waiting job waits."""

from collections.abc import Iterable, Mapping, Sequence
from uuid import UUID

from services.capacity.domain.fleet import Node, by_type
from services.capacity.domain.free_gpus import NodeSizes, in_zone
from services.capacity.domain.placement import Allocation, SchedulingPolicy, WaitingJob, gpus_by_user

BEHIND = "Waiting for the jobs ahead of it"


def reasons(
    nodes: Iterable[Node], queue: Iterable[WaitingJob], allocations: Iterable[Allocation], policy: SchedulingPolicy
) -> dict[UUID, str]:
    """Why each job waits; jobs that still wait for their disk are left out."""
    types = by_type(nodes)
    sizes = {gpu_type: NodeSizes(fleet) for gpu_type, fleet in types.items()}
    users = gpus_by_user(allocations)
    found: dict[UUID, str] = {}
    types_with_head: set[str] = set()
    for job in sorted((one for one in queue if one.ready), key=lambda one: one.order):
        own = _own_reason(sizes.get(job.gpu_type), job, users, policy)
        if own is None and job.gpu_type not in types_with_head:
            types_with_head.add(job.gpu_type)
            own = _reason_of_head(types[job.gpu_type], job)
        found[job.job_id] = own or BEHIND
    return found


def wanted(gpu_count: int, gpu_type: str) -> str:
    """'8 h100 GPUs'."""
    return f"{gpu_count} {gpu_type} {unit(gpu_count)}"


def unit(gpu_count: int) -> str:
    """'GPU' or 'GPUs'."""
    return "GPU" if gpu_count == 1 else "GPUs"


def _own_reason(
    sizes: NodeSizes | None, job: WaitingJob, users: Mapping[int, int], policy: SchedulingPolicy
) -> str | None:
    if sizes is None:
        return f"The cluster has no {job.gpu_type} nodes now"
    if not sizes.fits(job.gpu_count, job.zone):
        where = f" in zone {job.zone}, where its disk is" if job.zone else ""
        return f"No node has {wanted(job.gpu_count, job.gpu_type)}{where}"
    most, held = policy.most_gpus_per_user, users.get(job.user_id, 0)
    if most is not None and held + job.gpu_count > most:
        return f"You hold {held} {unit(held)}, and with this job it would be more than the {most} allowed"
    return None


def _reason_of_head(fleet: Sequence[Node], job: WaitingJob) -> str:
    usable = [node for node in fleet if node.usable]
    if not NodeSizes(usable).fits(job.gpu_count, job.zone):
        return f"No {job.gpu_type} node that could run it is ready and schedulable"
    free = sum(node.placeable for node in usable if in_zone(node, job.zone))
    text = wanted(job.gpu_count, job.gpu_type)
    if free >= job.gpu_count:
        return f"Waiting for {text} on one node: the free GPUs are spread over nodes"
    return f"Waiting for {text} to come free"
