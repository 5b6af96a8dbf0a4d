"""Announces to waiting jobs, and to everybody, what has changed."""

import time

from services.capacity.context import Context
from services.capacity.operations.announce import announce_queue
from shared.background import Loop
from shared.clock import Stopwatch

_REST_FACTOR = 5
"""The announcer rests this many times as long as it worked: a queue of any length leaves the machine to the others."""


class Announcer:
    def __init__(self, context: Context, *, stopwatch: Stopwatch = time.monotonic) -> None:
        self._context = context
        self._stopwatch = stopwatch
        self._rest_until = 0.0
        self.loop = Loop(
            "announcer", self._turn, period_seconds=1.0, pause_seconds=0.05, turn_seconds=60.0, stale_seconds=90.0
        )

    async def _turn(self) -> None:
        if self._stopwatch() < self._rest_until:
            return
        began = self._stopwatch()
        await announce_queue(self._context, now=self._context.clock())
        ended = self._stopwatch()
        self._rest_until = ended + _REST_FACTOR * (ended - began)
