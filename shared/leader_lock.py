"""A lock that one process holds at a time: a session-level advisory lock on a connection of its own.

A holder that dies loses it at once, with its connection; one that hangs, when PostgreSQL has not heard of it for a
while (`idle_session_timeout`). For a moment two processes may each think that they hold it, so nothing but order may
rest on it.
"""

import time
from typing import Any

import sqlalchemy as sa

from shared.database.connection import Database
from shared.database.locks import SCHEMA, lock_key
from shared.database.statement import Statement
from shared.errors import DatabaseUnavailable

_PROBE_SECONDS = 2.0
_TAKE = Statement(sa.select(sa.func.pg_try_advisory_lock(sa.bindparam("key", type_=sa.Integer), SCHEMA)))
_PROBE = Statement(sa.select(sa.literal(1)))


class LeaderLock:
    """To be asked before each piece of work: whether this process may do it.

    Args:
        database: Whose schema the lock belongs to.
        name: Of the lock, as `lock_key` takes it.
        silence_seconds: A holder that has not asked for so long has lost it; longer than the pause between two pieces
            of work.
    """

    def __init__(self, database: Database, name: str, *, silence_seconds: float = 10.0) -> None:
        self._database = database
        self._key = lock_key(name)
        self._silence_seconds = silence_seconds
        self._session: Any = None
        self._held = False
        self._probed_at = 0.0

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
        if not self._held:
            self._held = bool(await self._session.fetch_value(_TAKE, key=self._key))
            self._probed_at = time.monotonic()
        elif time.monotonic() - self._probed_at > _PROBE_SECONDS:
            await self._session.execute(_PROBE)
            self._probed_at = time.monotonic()
        return self._held

    def release(self) -> None:
        """Give it up, for another process to take."""
        if self._session is not None:
            self._session.terminate()
        self._session = None
        self._held = False
