"""Cancels the jobs of users who are disabled."""

from services.jobs.context import Context
from services.jobs.operations.cancel import cancel_jobs_of_disabled
from shared.background import Loop

_BATCH = 50
_PERIOD_SECONDS = 1.0


class DisabledUsers:
    """Cancels the jobs of users who are disabled, as their owners would.

    Args:
        context: The service's.
    """

    def __init__(self, context: Context) -> None:
        self._context = context
        self.loop = Loop("disabled_users", self._turn, period_seconds=_PERIOD_SECONDS)

    async def _turn(self) -> bool:
        found = await cancel_jobs_of_disabled(limit=_BATCH, now=self._context.clock(), context=self._context)
        return found == _BATCH
