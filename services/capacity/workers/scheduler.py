"""Schedules waiting jobs whenever something has changed."""

import asyncio

from services.capacity.context import Context
from services.capacity.operations.schedule import schedule_jobs
from shared.background import Loop

_BUSY_SECONDS = 0.05


class Scheduler:
    """Runs a round when woken, and every second anyway, since a job's turn can come without an event."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self.loop = Loop(
            "scheduler", self._turn, period_seconds=1.0, pause_seconds=0.05, turn_seconds=20.0, stale_seconds=15.0
        )

    async def _turn(self) -> bool:
        outcome = await schedule_jobs(self._context, now=self._context.clock())
        if not outcome.ran or outcome.passed_over:
            # the other replica's round may have begun before the change that woke this one; who has a job's row, such
            # as the announcer, has it for a moment
            asyncio.get_running_loop().call_later(_BUSY_SECONDS, self.loop.wake)
        if outcome.ran and not outcome.more:
            self._context.announcer.wake()
        return outcome.more
