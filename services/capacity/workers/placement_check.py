"""Watches the scheduler from outside: its turns may end well, and place nothing."""

import time
from uuid import UUID

from services.capacity.context import Context
from services.capacity.operations.check_placement import find_startable
from shared.background import Loop
from shared.clock import Stopwatch

_PERIOD_SECONDS = 1.0
_OVERDUE_SECONDS = 5.0
"""A round comes at least every second."""


class PlacementCheck:
    def __init__(self, context: Context, stopwatch: Stopwatch = time.monotonic) -> None:
        self._context = context
        self._stopwatch = stopwatch
        self._since: dict[UUID, float] = {}
        """When each job that could start was first seen so."""
        self._looked_at = stopwatch()
        self.loop = Loop("placement_check", self._turn, period_seconds=_PERIOD_SECONDS, stale_seconds=20.0)

    def fault(self) -> str | None:
        """For health: that jobs are not placed; None when they are."""
        waited = max((self._looked_at - since for since in self._since.values()), default=0.0)
        if waited < _OVERDUE_SECONDS:
            return None
        return f"scheduler: a job has waited {waited:.0f} s for a lease though GPUs are free for it"

    async def _turn(self) -> None:
        startable = await find_startable(self._context)
        self._looked_at = self._stopwatch()
        self._since = {job_id: self._since.get(job_id, self._looked_at) for job_id in startable}
