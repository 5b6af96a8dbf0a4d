"""Forgets keys and log-in windows that ended long ago."""

from services.auth.context import Context
from services.auth.operations.purge import purge_ended
from shared.background import Loop

_PERIOD_SECONDS = 60.0


class Retention:
    def __init__(self, context: Context) -> None:
        self._context = context
        self.loop = Loop("ended_keys", self._turn, period_seconds=_PERIOD_SECONDS)

    async def _turn(self) -> bool:
        return await purge_ended(self._context, now=self._context.clock())
