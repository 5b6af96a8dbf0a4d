"""When keys were last used: gathered in memory, written together every few seconds."""

from datetime import datetime

from services.auth.storage.api_keys import TOUCH_KEYS
from shared.database import Database


class LastUsed:
    """A write with each request would cost more than checking its key. A crash loses the uses of a few seconds."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._times: dict[str, datetime] = {}

    def note(self, key_id: str, used_at: datetime) -> None:
        """Remember a use."""
        self._times[key_id] = used_at

    async def flush(self) -> None:
        """Write what was gathered, in one statement; what could not be written is kept for the next time."""
        times, self._times = self._times, {}
        if not times:
            return
        try:
            await self._database.execute(TOUCH_KEYS, key_ids=list(times), times=list(times.values()))
        except BaseException:
            self._times = times | self._times
            raise
