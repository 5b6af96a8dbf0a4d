"""When a lease ends: at the latest, and by what is known of jobs like it."""

from bisect import bisect_right
from collections.abc import Sequence
from datetime import datetime, timedelta
from uuid import UUID

import msgspec

from services.capacity.domain.availability import OVER
from services.capacity.domain.placement import Allocation, SchedulingPolicy
from shared.contracts.jobs import JobStatus

ENOUGH = 20
"""A distribution needs so many runs; for each one that is missing, a run of the full time is assumed."""
_USUAL_PREPARATION_SECONDS = 60.0


class Runs(msgspec.Struct, frozen=True, kw_only=True):
    """How jobs that have ended ran."""

    shares: tuple[float, ...]
    """Of the time that each asked for, the share that it ran; ascending, and above 1 for one that was extended."""
    preparations: tuple[float, ...]
    """Seconds from the lease to the start of the time box, ascending."""

    @classmethod
    def of(cls, shares: Sequence[float], preparations: Sequence[float]) -> "Runs":
        """From measurements in any order; as long as they are too few, jobs count as using all their time."""
        lacking = max(0, ENOUGH - len(shares))
        unprepared = max(0, ENOUGH - len(preparations))
        return cls(
            shares=tuple(sorted([*shares, *[1.0] * lacking])),
            preparations=tuple(sorted([*preparations, *[_USUAL_PREPARATION_SECONDS] * unprepared])),
        )

    def length(self, quantile: float, seconds: float) -> float:
        """How many seconds a job runs that asks for so many."""
        return self.shares[int(quantile * len(self.shares))] * seconds

    def longer(self, share: float) -> Sequence[float]:
        """The shares above this one; empty: no job ever ran longer."""
        return self.shares[bisect_right(self.shares, share) :]

    def preparation(self, quantile: float) -> float:
        """Seconds from a lease to the start of the time box."""
        return self.preparations[int(quantile * len(self.preparations))]


class Lease(msgspec.Struct, frozen=True, kw_only=True):
    """A job that holds GPUs."""

    job_id: UUID
    node: str
    gpu_count: int
    user_id: int
    duration: timedelta
    """As asked for at submit."""
    granted_at: datetime
    started_at: datetime | None
    """None: its pod is not ready yet."""
    expires_at: datetime | None
    """End of its time box, with its extensions; None before it has started."""
    cancelling: bool
    status: JobStatus

    @property
    def leaving(self) -> bool:
        """Whether it is over for its user, or will be at once: its GPUs come back as soon as its pod is gone."""
        return self.cancelling or self.status in OVER

    def latest_end(self, now: datetime, policy: SchedulingPolicy) -> datetime:
        """When its GPUs come back at the latest."""
        if self.leaving:
            return now + policy.release
        if self.expires_at is not None:
            return max(self.expires_at, now) + policy.release
        return max(self.granted_at + policy.preparation, now) + self.duration + policy.release

    def allocation(self, now: datetime, policy: SchedulingPolicy) -> Allocation:
        """What the scheduler counts with."""
        return Allocation(
            node=self.node, gpu_count=self.gpu_count, user_id=self.user_id, ends_at=self.latest_end(now, policy)
        )

    def likely_ends(self, now: datetime, runs: Runs, quantiles: Sequence[float]) -> list[float]:
        """Seconds from now until it ends, for each quantile of the runs.

        Args:
            now: Time of the estimate.
            runs: How other jobs ran.
            quantiles: Each from 0 to below 1.
        """
        if self.leaving:
            return [0.0] * len(quantiles)
        asked = self._box().total_seconds()
        if self.started_at is None:
            since = (now - self.granted_at).total_seconds()
            return [max(runs.preparation(each) - since, 0.0) + runs.length(each, asked) for each in quantiles]
        elapsed = (now - self.started_at).total_seconds()
        shares = runs.longer(elapsed / asked)
        if not shares:
            rest = (self.expires_at - now).total_seconds() if self.expires_at else 0.0
            return [max(rest, 0.0)] * len(quantiles)
        return [shares[int(each * len(shares))] * asked - elapsed for each in quantiles]

    def _box(self) -> timedelta:
        """The time that its owner asks for by now: an extension counts as if it had been asked for at submit."""
        if self.started_at is None or self.expires_at is None:
            return self.duration
        return max(self.duration, self.expires_at - self.started_at)
