"""Forgets jobs that ended long ago."""

from services.capacity.context import Context
from services.capacity.operations.purge import purge_queue
from shared.background import Loop

_PERIOD_SECONDS = 3600.0


class Retention:
    def __init__(self, context: Context) -> None:
        self._context = context
        self.loop = Loop("purge_queue", self._turn, period_seconds=_PERIOD_SECONDS, stale_seconds=3 * _PERIOD_SECONDS)

    async def _turn(self) -> bool:
        return await purge_queue(self._context.database, self._context.clock())
