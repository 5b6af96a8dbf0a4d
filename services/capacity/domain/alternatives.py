"""What a user could ask for instead of the waiting job, to start sooner."""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from uuid import UUID

import msgspec

from services.capacity.domain.estimates import Estimate
from services.capacity.domain.fleet import Node, by_type
from services.capacity.domain.placement import Allocation, SchedulingPolicy, SchedulingRound, WaitingJob, gpus_by_user
from services.capacity.domain.reasons import unit, wanted
from shared.contracts.capacity import Sooner
from shared.contracts.catalogue import CATALOGUE

SHORTEST = timedelta(minutes=5)
"""The shortest job that may be submitted."""
_COUNTS = (8, 4, 2, 1)
_STEP = timedelta(minutes=5)


def smaller(job: WaitingJob) -> list[WaitingJob]:
    """The same job with fewer GPUs, the most first."""
    return [msgspec.structs.replace(job, gpu_count=count) for count in _COUNTS if count < job.gpu_count]


def find_alternatives(
    nodes: Sequence[Node],
    queue: Sequence[WaitingJob],
    job: WaitingJob,
    *,
    allocations: Sequence[Allocation],
    now: datetime,
    policy: SchedulingPolicy,
    estimates: Mapping[int, Estimate | None],
) -> tuple[Sooner, ...]:
    """Changes of the job with which it would start sooner; the closest to the job as it is comes first.

    Args:
        nodes: Of all types.
        queue: Every waiting job, in any order; the job itself may be among them or not.
        job: It waits for GPUs.
        allocations: What runs.
        now: Time of the question.
        policy: The operators'.
        estimates: By number of GPUs, when the job would start with so many in its position; as far as can be known.
    """
    others = sorted((other for other in queue if other.job_id != job.job_id), key=lambda other: other.order)
    fleets = by_type(nodes)
    check = StartCheck(fleets, others, allocations, now, policy)
    found = [check.shorter(job)]
    usual = estimates.get(job.gpu_count)
    for fewer in smaller(job):
        at_once = _fewer(fewer, job, None) if check.starts(fewer) else None
        later = _if_sooner(estimates.get(fewer.gpu_count), usual, fewer, job)
        found.append(at_once or later or check.shorter(fewer, job))
    for gpu_type in _other_types(job, fleets):
        other = msgspec.structs.replace(job, gpu_type=gpu_type)
        if check.starts(other):
            text = f"{wanted(job.gpu_count, gpu_type)} instead of {job.gpu_type}: now"
            found.append(Sooner(gpu_count=job.gpu_count, gpu_type=gpu_type, text=text))
    return tuple(one for one in found if one is not None)


class StartCheck:
    """Whether a job would start now, in its position in the queue."""

    def __init__(
        self,
        fleets: Mapping[str, Sequence[Node]],
        others: Sequence[WaitingJob],
        allocations: Sequence[Allocation],
        now: datetime,
        policy: SchedulingPolicy,
    ) -> None:
        self._fleets, self._others, self._allocations, self._now, self._policy = (
            fleets,
            others,
            allocations,
            now,
            policy,
        )
        self._rounds: dict[tuple[str, tuple[int, datetime, UUID]], SchedulingRound] = {}

    def starts(self, job: WaitingJob) -> bool:
        """With the time box that it has."""
        before = self._round_before(job)
        return not before.beyond_limit(job) and before.find(job) is not None

    def shorter(self, job: WaitingJob, original: WaitingJob | None = None) -> Sooner | None:
        """With a time box that ends before the head needs the GPUs; None: there is none, or it needs none."""
        before = self._round_before(job)
        kept = before.reservation
        if kept is None or kept.start is None or before.beyond_limit(job):
            return None
        longest = kept.start - self._policy.latest_end(self._now, timedelta())
        longest -= longest % _STEP
        if not SHORTEST <= longest < job.duration or not self.starts(msgspec.structs.replace(job, duration=longest)):
            return None
        size = f"{job.gpu_count} {unit(job.gpu_count)} instead of {original.gpu_count} and " if original else ""
        return Sooner(
            gpu_count=job.gpu_count,
            gpu_type=job.gpu_type,
            max_duration_seconds=round(longest.total_seconds()),
            text=f"{size}at most {_span(longest)} instead of {_span(job.duration)}: now",
        )

    def _round_before(self, job: WaitingJob) -> SchedulingRound:
        """What is left by those ahead; the same for every size and length of a job. Only to be asked."""
        key = (job.gpu_type, job.order)
        if key not in self._rounds:
            self._rounds[key] = self._make_round_before(job)
        return self._rounds[key]

    def _make_round_before(self, job: WaitingJob) -> SchedulingRound:
        users = gpus_by_user(self._allocations)
        before = SchedulingRound(self._fleets.get(job.gpu_type, ()), self._allocations, users, self._now, self._policy)
        before.schedule(other for other in self._others if other.gpu_type == job.gpu_type and other.order < job.order)
        return before


def _if_sooner(found: Estimate | None, usual: Estimate | None, fewer: WaitingJob, job: WaitingJob) -> Sooner | None:
    if found is None or (usual is not None and _minute(found.p50) >= _minute(usual.p50)):
        return None
    return _fewer(fewer, job, found.p50)


def _fewer(fewer: WaitingJob, job: WaitingJob, start_at: datetime | None) -> Sooner:
    when = "now" if start_at is None else f"about {start_at:%Y-%m-%d %H:%M} UTC"
    return Sooner(
        gpu_count=fewer.gpu_count,
        gpu_type=fewer.gpu_type,
        start_at=start_at,
        text=f"{fewer.gpu_count} {unit(fewer.gpu_count)} instead of {job.gpu_count}: {when}",
    )


def _minute(moment: datetime) -> datetime:
    """As it is told."""
    return moment.replace(second=0, microsecond=0)


def _other_types(job: WaitingJob, fleets: Mapping[str, Sequence[Node]]) -> list[str]:
    if job.zone is not None:
        return []  # its disk may not be where the others are
    known = dict.fromkeys(instance.gpu_type for instance in CATALOGUE)
    return [gpu_type for gpu_type in known if gpu_type != job.gpu_type and gpu_type in fleets]


def _span(span: timedelta) -> str:
    """To the second: two that differ by less than a minute must not read the same."""
    minutes, seconds = divmod(round(span.total_seconds()), 60)
    hours, minutes = divmod(minutes, 60)
    parts = ((hours, "h"), (minutes, "min"), (seconds, "s"))
    return " ".join(f"{number} {letters}" for number, letters in parts if number)
