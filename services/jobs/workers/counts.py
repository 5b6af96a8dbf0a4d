"""Keeps the counts of users' jobs short, so that reading one costs the same however many jobs have changed."""

from services.jobs.context import Context
from services.jobs.operations.fold_counts import fold_counts
from shared.background import Loop

_PERIOD_SECONDS = 1.0


class CountFolder:
    """Folds the counts.

    Args:
        context: The service's.
    """

    def __init__(self, context: Context) -> None:
        self._context = context
        self.loop = Loop("fold_counts", self._turn, period_seconds=_PERIOD_SECONDS)

    async def _turn(self) -> None:
        await fold_counts(self._context)
