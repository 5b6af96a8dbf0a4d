"""A lock that one process holds at a time: a session-level advisory lock on a connection of its own.

A holder that dies loses it at once, with its connection; one that hangs, when PostgreSQL has not heard of it for a
while (`idle_session_timeout`). For a moment two processes may each think that they hold it, so nothing but order may
rest on it.
"""

import time
from collections.abc import Awaitable, Callable
from typing import Any

import sqlalchemy as sa

from shared.background import Loop
from shared.clock import Stopwatch
from shared.database.connection import Database
from shared.database.locks import try_session_lock
from shared.database.statement import Statement
from shared.errors import DatabaseUnavailable

_PROBE_SECONDS = 2.0
_PROBE = Statement(sa.select(sa.literal(1)))


class LeaderLock:
    """To be asked before each piece of work: whether this process may do it.

    Args:
        database: Whose schema the lock belongs to.
        name: Of the lock, four letters, kept for ever (shared.database.locks).
        silence_seconds: A holder that has not asked for so long has lost it; longer than the pause between two pieces
            of work.
        stopwatch: Tells when the lock was last looked at.
    """

    def __init__(
        self, database: Database, name: str, *, silence_seconds: float = 10.0, stopwatch: Stopwatch = time.monotonic
    ) -> None:
        self._database = database
        self._take = try_session_lock(name)
        self._silence_seconds = silence_seconds
        self._stopwatch = stopwatch
        self._session: Any = None
        self._held = False
        self._probed_at = 0.0
        self.term = 0
        """How often it was taken: another process may have held it between two terms."""

    async def held(self) -> bool:
        """Whether this process holds it; takes it when it is free.

        Raises:
            DatabaseUnavailable: The database does not answer; this process no longer holds it.
        """
        if self._session is not None:
            try:
                return await self._ask()
            except DatabaseUnavailable:
                self.release()  # the session is over, which says nothing about the database
        try:
            self._session = await self._database.open_session(idle_seconds=self._silence_seconds)
            return await self._ask()
        except DatabaseUnavailable:
            self.release()
            raise

    async def _ask(self) -> bool:
        if self._session.is_closed:
            raise DatabaseUnavailable
        if not self._held:
            self._held = bool(await self._session.fetch_value(self._take))
            self._probed_at = self._stopwatch()
            self.term += self._held
        elif self._stopwatch() - self._probed_at > _PROBE_SECONDS:
            await self._session.execute(_PROBE)
            self._probed_at = self._stopwatch()
        return self._held

    def release(self) -> None:
        """Give it up, for another process to take."""
        if self._session is not None:
            self._session.terminate()
        self._session = None
        self._held = False


def leader_loop(
    name: str,
    turn: Callable[[], Awaitable[bool | None]],
    *,
    database: Database,
    lock: str,
    period_seconds: float,
    turn_seconds: float,
    stale_seconds: float | None = None,
    following: Callable[[], None] = lambda: None,
) -> Loop:
    """A loop whose turns one replica has at a time, the leader; the others turn in its place when it is gone.

    For work over everything, which two replicas would only do twice. What a turn does must be safe all the same when
    for a moment two think that they lead.

    Args:
        name: In logs, metrics and health.
        turn: As of `Loop`; an outage of what it works on is for it to tell, since health calls a failing loop wedged.
        database: Whose schema the lock belongs to.
        lock: Name of the lock.
        period_seconds: Between two turns.
        turn_seconds: For one turn: one that takes longer is cancelled, and counts as failed.
        stale_seconds: Health calls the loop wedged when no turn ended well for so long.
        following: Called in place of a turn while another replica leads, such as to withdraw what this one has told.
    """
    leader_lock = LeaderLock(database, lock, silence_seconds=2 * period_seconds + turn_seconds)

    async def lead() -> bool | None:
        if await leader_lock.held():
            return await turn()
        following()
        return False

    return Loop(
        name,
        lead,
        period_seconds=period_seconds,
        turn_seconds=turn_seconds,
        stale_seconds=stale_seconds,
        at_end=leader_lock.release,
    )
