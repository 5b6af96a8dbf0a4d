"""When a lease ends: at the latest, and by what is known of jobs like it."""

from bisect import bisect_right
from collections.abc import Sequence
from datetime import datetime, timedelta
from uuid import UUID

import msgspec

from services.capacity.domain.availability import OVER
from services.capacity.domain.placement import Hold, Terms
from shared.contracts.jobs import JobStatus

ENOUGH = 20
"""Runs from which a distribution is believed; for as many as are missing, the full time is assumed."""
_USUAL_PREPARATION_SECONDS = 60.0


class Runs(msgspec.Struct, frozen=True, kw_only=True):
    """What was measured of jobs that have ended."""

    shares: tuple[float, ...]
    """How long they ran by how long they asked for, ascending; above 1 when they were extended."""
    preparations: tuple[float, ...]
    """Seconds from the lease to the start of the time box, ascending."""

    @classmethod
    def of(cls, shares: Sequence[float], preparations: Sequence[float]) -> "Runs":
        """From measurements in any order. Without enough of them, jobs count as using all their time."""
        lacking = max(0, ENOUGH - len(shares))
        unprepared = max(0, ENOUGH - len(preparations))
        return cls(
            shares=tuple(sorted([*shares, *[1.0] * lacking])),
            preparations=tuple(sorted([*preparations, *[_USUAL_PREPARATION_SECONDS] * unprepared])),
        )

    def length(self, chance: float, seconds: float) -> float:
        """How long a job that asks for so many seconds runs."""
        return self.shares[int(chance * len(self.shares))] * seconds

    def longer(self, share: float) -> Sequence[float]:
        """Shares of the jobs that ran longer than this; none: no job ever did."""
        return self.shares[bisect_right(self.shares, share) :]

    def preparation(self, chance: float) -> float:
        """Seconds from a lease to the start of the time box."""
        return self.preparations[int(chance * len(self.preparations))]


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
    """None: its pod is being made."""
    expires_at: datetime | None
    """End of its time box, extensions included; None before it has started."""
    cancelling: bool
    status: JobStatus

    @property
    def leaving(self) -> bool:
        """It is over for its user, or soon: its GPUs come back as soon as its pod is gone."""
        return self.cancelling or self.status in OVER

    def latest_end(self, now: datetime, terms: Terms) -> datetime:
        """When its GPUs come back at the latest."""
        if self.leaving:
            return now + terms.release
        if self.expires_at is not None:
            return max(self.expires_at, now) + terms.release
        return max(self.granted_at + terms.preparation, now) + self.duration + terms.release

    def hold(self, now: datetime, terms: Terms) -> Hold:
        """As the placer sees it."""
        return Hold(node=self.node, gpu_count=self.gpu_count, user_id=self.user_id, ends_at=self.latest_end(now, terms))

    def likely_ends(self, now: datetime, runs: Runs, chances: Sequence[float]) -> list[float]:
        """Seconds from now until it ends, for each chance that fate draws from the runs.

        Args:
            now: Time of the estimate.
            runs: What is known of others.
            chances: From 0 to below 1.
        """
        if self.leaving:
            return [0.0] * len(chances)
        asked = self._box().total_seconds()
        if self.started_at is None:
            since = (now - self.granted_at).total_seconds()
            return [max(runs.preparation(chance) - since, 0.0) + runs.length(chance, asked) for chance in chances]
        elapsed = (now - self.started_at).total_seconds()
        shares = runs.longer(elapsed / asked)
        if not shares:
            rest = (self.expires_at - now).total_seconds() if self.expires_at else 0.0
            return [max(rest, 0.0)] * len(chances)
        return [shares[int(chance * len(shares))] * asked - elapsed for chance in chances]

    def _box(self) -> timedelta:
        """What its owner wants by now: who extends wants the longer time as others want what they asked for."""
        if self.started_at is None or self.expires_at is None:
            return self.duration
        return max(self.duration, self.expires_at - self.started_at)
