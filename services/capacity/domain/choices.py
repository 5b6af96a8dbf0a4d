"""What a user could submit now, and when it would start."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from uuid import UUID

import msgspec

from services.capacity.domain.alternatives import StartCheck
from services.capacity.domain.estimates import MOST_JOBS, Estimate, Facts, estimate_each
from services.capacity.domain.fleet import Node, by_type
from services.capacity.domain.placement import SchedulingPolicy, WaitingJob
from services.capacity.domain.reasons import BEHIND, reasons
from shared.contracts.catalogue import CATALOGUE

_COUNTS = (1, 2, 4, 8)
_LAST = UUID(int=2**128 - 1)
"""Id of the job that is thought of: behind all that were submitted at the same moment."""


class Choice(msgspec.Struct, frozen=True, kw_only=True):
    """A size of job, and when it would start if it were submitted now."""

    instance_type: str
    gpu_type: str
    gpu_count: int
    starts_now: bool
    estimate: Estimate | None
    """None: it starts now, or nobody can say when."""
    reason: str | None
    """What it would wait for; None: for nothing."""


def find_choices(
    facts: Facts,
    queue: Sequence[WaitingJob],
    *,
    user_id: int,
    duration: timedelta,
    now: datetime,
    policy: SchedulingPolicy,
) -> list[Choice]:
    """Every size of job that a node of the cluster has GPUs for, in the catalogue's order.

    Args:
        facts: Of this moment.
        queue: The beginning of each type's queue.
        user_id: Whose job it would be.
        duration: That it would ask for.
        now: Time of the question.
        policy: The operators'.
    """
    fleets = by_type(facts.nodes)
    # behind all that wait, also behind those whose replica's clock is ahead of this one's
    submitted_at = max([now, *(job.submitted_at for job in queue)])
    finder = _Finder(facts, sorted(queue, key=lambda one: one.order), fleets, now, policy)
    found: list[Choice] = []
    for instance_type, gpu_type in _types(fleets):
        largest = max(node.gpus for node in fleets[gpu_type])
        jobs = [
            WaitingJob(
                job_id=_LAST,
                gpu_type=gpu_type,
                gpu_count=count,
                submitted_at=submitted_at,
                duration=duration,
                ready=True,
                user_id=user_id,
            )
            for count in _COUNTS
            if count <= largest
        ]
        found += finder.choices(instance_type, jobs) if jobs else []
    return found


class _Finder:
    """What is the same for all choices; `queue` is in its order."""

    def __init__(
        self,
        facts: Facts,
        queue: Sequence[WaitingJob],
        fleets: dict[str, list[Node]],
        now: datetime,
        policy: SchedulingPolicy,
    ) -> None:
        self._facts, self._queue, self._now, self._policy = facts, queue, now, policy
        self._allocations = [lease.allocation(now, policy) for lease in facts.leases]
        self._check = StartCheck(fleets, queue, self._allocations, now, policy)

    def choices(self, instance_type: str, jobs: Sequence[WaitingJob]) -> list[Choice]:
        """A choice for each job, all of them of one GPU type."""
        ahead = [other for other in self._queue if other.gpu_type == jobs[0].gpu_type]
        estimates: Sequence[Estimate | None] = [None] * len(jobs)
        if len(ahead) < MOST_JOBS:
            estimates = estimate_each(self._facts, ahead, jobs, now=self._now, policy=self._policy)
        return [
            self._choice(instance_type, job, ahead, estimate) for job, estimate in zip(jobs, estimates, strict=True)
        ]

    def _choice(
        self, instance_type: str, job: WaitingJob, ahead: Sequence[WaitingJob], estimate: Estimate | None
    ) -> Choice:
        starts_now = self._check.starts(job)
        found = reasons(self._facts.nodes, [*ahead, job], self._allocations, self._policy)
        return Choice(
            instance_type=instance_type,
            gpu_type=job.gpu_type,
            gpu_count=job.gpu_count,
            starts_now=starts_now,
            estimate=None if starts_now else estimate,
            reason=None if starts_now else found.get(job.job_id, BEHIND),
        )


def _types(fleets: dict[str, list[Node]]) -> list[tuple[str, str]]:
    """The first instance type of each GPU type that there are nodes of."""
    names: dict[str, str] = {}
    for instance in CATALOGUE:
        if instance.gpu_type in fleets:
            names.setdefault(instance.gpu_type, instance.name)
    return [(name, gpu_type) for gpu_type, name in names.items()]
