"""The placer's loop, and the one that tells the line of it."""

import asyncio
import time
from datetime import UTC, datetime

from services.capacity.domain.placement import Terms
from services.capacity.operations.announce import tell_line
from services.capacity.operations.schedule import place_jobs
from shared.background import Loop
from shared.database import Database
from shared.messaging.outbox import Wakes

_BUSY_SECONDS = 0.05
_SHARE = 5
"""Telling rests at least so many times as long as it took: a line of any length leaves the machine to the rest."""


class Placer:
    """Places waiting jobs whenever something changed, and every second anyway: the last one starts with nobody calling.

    Args:
        database: Capacity's.
        relay: Woken when events were recorded.
        terms: The operators'.
    """

    def __init__(self, *, database: Database, relay: Wakes, terms: Terms) -> None:
        self._database = database
        self._relay = relay
        self._terms = terms
        self._rest_until = 0.0
        self.loop = Loop(
            "placer", self._turn, period_seconds=1.0, pause_seconds=0.05, turn_seconds=20.0, stale_seconds=15.0
        )
        self.telling = Loop(
            "teller", self._tell, period_seconds=1.0, pause_seconds=0.05, turn_seconds=60.0, stale_seconds=90.0
        )

    def wake(self) -> None:
        """Place soon."""
        self.loop.wake()

    async def _turn(self) -> bool:
        placed = await place_jobs(self._database, now=datetime.now(UTC), relay=self._relay, terms=self._terms)
        if not placed.ran:
            # the other replica's round may have begun before the change that woke this one
            asyncio.get_running_loop().call_later(_BUSY_SECONDS, self.loop.wake)
        elif not placed.more:
            self.telling.wake()
        return placed.more

    async def _tell(self) -> None:
        if time.monotonic() < self._rest_until:
            return
        began = time.monotonic()
        await tell_line(self._database, now=datetime.now(UTC), relay=self._relay, terms=self._terms)
        ended = time.monotonic()
        self._rest_until = ended + _SHARE * (ended - began)
