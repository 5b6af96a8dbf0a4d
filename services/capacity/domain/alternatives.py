"""What a waiting job's user could ask for instead to start sooner."""

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta

import msgspec

from services.capacity.domain.estimates import Estimate
from services.capacity.domain.fleet import Node, by_type
from services.capacity.domain.placement import Hold, Line, Terms, Waiting
from services.capacity.domain.reasons import wanted
from shared.contracts.capacity import Sooner
from shared.contracts.catalogue import CATALOGUE

SHORTEST = timedelta(minutes=5)
"""The shortest job that may be submitted."""
_COUNTS = (8, 4, 2, 1)
_STEP = timedelta(minutes=5)


def smaller(job: Waiting) -> list[Waiting]:
    """The same job with fewer GPUs, the most first."""
    return [msgspec.structs.replace(job, gpu_count=count) for count in _COUNTS if count < job.gpu_count]


def find_sooner(
    nodes: Sequence[Node],
    line: Sequence[Waiting],
    job: Waiting,
    *,
    holds: Sequence[Hold],
    now: datetime,
    terms: Terms,
    estimates: Mapping[int, Estimate | None],
) -> tuple[Sooner, ...]:
    """Changes of the job that would start it sooner, the closest to what it is first.

    Args:
        nodes: Of all types.
        line: All who wait, in any order; the job itself among them or not.
        job: The one that waits for GPUs.
        holds: What runs.
        now: Time of the question.
        terms: The operators'.
        estimates: By number of GPUs, when the job would start in its place with these; as far as anybody can know.
    """
    others = sorted((other for other in line if other.job_id != job.job_id), key=lambda other: other.order)
    fleets = by_type(nodes)
    chances = _Chances(fleets, others, holds, now, terms)
    found = [chances.shorter(job)]
    usual = estimates.get(job.gpu_count)
    for fewer in smaller(job):
        at_once = _fewer(fewer, job, None) if chances.starts(fewer) else None
        later = _if_sooner(estimates.get(fewer.gpu_count), usual, fewer, job)
        found.append(at_once or later or chances.shorter(fewer, job))
    for gpu_type in _other_types(job, fleets):
        other = msgspec.structs.replace(job, gpu_type=gpu_type)
        if chances.starts(other):
            text = f"{wanted(job.gpu_count, gpu_type)} instead of {job.gpu_type}: now"
            found.append(Sooner(gpu_count=job.gpu_count, gpu_type=gpu_type, text=text))
    return tuple(one for one in found if one is not None)


class _Chances:
    """Whether a job would start now, in its place in the line."""

    def __init__(
        self,
        fleets: Mapping[str, Sequence[Node]],
        others: Sequence[Waiting],
        holds: Sequence[Hold],
        now: datetime,
        terms: Terms,
    ) -> None:
        self._fleets, self._others, self._holds, self._now, self._terms = fleets, others, holds, now, terms

    def starts(self, job: Waiting) -> bool:
        """With the time box that it has."""
        line = self._line_before(job)
        return not line.beyond_limit(job) and line.find(job) is not None

    def shorter(self, job: Waiting, original: Waiting | None = None) -> Sooner | None:
        """With a time box that ends before the head needs the GPUs; None: there is none, or it needs none."""
        line = self._line_before(job)
        kept = line.reservation
        if kept is None or kept.start is None or line.beyond_limit(job):
            return None
        longest = kept.start - self._terms.latest_end(self._now, timedelta())
        longest -= longest % _STEP
        if not SHORTEST <= longest < job.duration or not self.starts(msgspec.structs.replace(job, duration=longest)):
            return None
        size = f"{job.gpu_count} GPUs instead of {original.gpu_count} and " if original else ""
        return Sooner(
            gpu_count=job.gpu_count,
            gpu_type=job.gpu_type,
            max_duration_seconds=round(longest.total_seconds()),
            text=f"{size}at most {_span(longest)} instead of {_span(job.duration)}: now",
        )

    def _line_before(self, job: Waiting) -> Line:
        users = Counter[int]()
        for hold in self._holds:
            users[hold.user_id] += hold.gpu_count
        line = Line(self._fleets.get(job.gpu_type, ()), self._holds, users, self._now, self._terms)
        line.place(other for other in self._others if other.gpu_type == job.gpu_type and other.order < job.order)
        return line


def _if_sooner(found: Estimate | None, usual: Estimate | None, fewer: Waiting, job: Waiting) -> Sooner | None:
    if found is None or (usual is not None and found.p50 >= usual.p50):
        return None
    return _fewer(fewer, job, found.p50)


def _fewer(fewer: Waiting, job: Waiting, start_at: datetime | None) -> Sooner:
    when = "now" if start_at is None else f"about {start_at:%Y-%m-%d %H:%M} UTC"
    gpus = "GPU" if fewer.gpu_count == 1 else "GPUs"
    return Sooner(
        gpu_count=fewer.gpu_count,
        gpu_type=fewer.gpu_type,
        start_at=start_at,
        text=f"{fewer.gpu_count} {gpus} instead of {job.gpu_count}: {when}",
    )


def _other_types(job: Waiting, fleets: Mapping[str, Sequence[Node]]) -> list[str]:
    if job.zone is not None:
        return []  # its disk may not be where the others are
    known = dict.fromkeys(instance.gpu_type for instance in CATALOGUE)
    return [gpu_type for gpu_type in known if gpu_type != job.gpu_type and gpu_type in fleets]


def _span(span: timedelta) -> str:
    minutes = round(span.total_seconds() / 60)
    hours, rest = divmod(minutes, 60)
    return " ".join(filter(None, (f"{hours} h" if hours else "", f"{rest} min" if rest else "")))
