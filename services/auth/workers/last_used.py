"""Writes every few seconds when keys were last used, and once more at the end."""

from contextlib import suppress

from services.auth.context import Context
from shared.background import Loop
from shared.errors import Unavailable

_PERIOD_SECONDS = 3.0


class LastUsedWriter:
    def __init__(self, context: Context) -> None:
        self._last_used = context.last_used
        self.loop = Loop("last_used", self._last_used.flush, period_seconds=_PERIOD_SECONDS)

    async def close(self) -> None:
        """Write what has gathered since the last turn; it is lost when the database does not answer."""
        with suppress(Unavailable):
            await self._last_used.flush()
