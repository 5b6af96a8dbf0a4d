"""The placer's loop."""

import asyncio
from datetime import UTC, datetime

from services.capacity.operations import place_jobs
from shared.background import Loop
from shared.database import Database
from shared.messaging.outbox import Wakes

_BUSY_SECONDS = 0.05


class Placer:
    """Places waiting jobs whenever something changed, and every second anyway: the last one starts with nobody calling.

    Args:
        database: Capacity's.
        relay: Woken when events were recorded.
    """

    def __init__(self, *, database: Database, relay: Wakes) -> None:
        self._database = database
        self._relay = relay
        self.loop = Loop(
            "placer", self._turn, period_seconds=1.0, pause_seconds=0.05, turn_seconds=20.0, stale_seconds=15.0
        )

    def wake(self) -> None:
        """Place soon."""
        self.loop.wake()

    async def _turn(self) -> bool:
        placed = await place_jobs(self._database, now=datetime.now(UTC), relay=self._relay)
        if not placed.ran:
            # the other replica's round may have begun before the change that woke this one
            asyncio.get_running_loop().call_later(_BUSY_SECONDS, self.loop.wake)
        return placed.more
