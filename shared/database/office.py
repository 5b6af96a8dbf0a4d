"""An office that one process holds at a time, by a session-level advisory lock on a connection of its own.

A holder that dies loses it at once, with its connection; one that hangs, when PostgreSQL has not heard of it for a
while (`idle_session_timeout`). Two may think for a moment that they hold it, so nothing may rest on it but order.
"""

import time
from typing import Any

import sqlalchemy as sa

from shared.database.connection import Database
from shared.database.statement import Statement
from shared.errors import DatabaseUnavailable

_SIGN_SECONDS = 2.0
_KEY = sa.bindparam("key", type_=sa.Integer)
_TAKE = Statement(sa.select(sa.func.pg_try_advisory_lock(_KEY, sa.func.hashtext(sa.func.current_schema()))))
_SIGN = Statement(sa.select(sa.literal(1)))


class Office:
    """To be asked before each piece of work: whether this process may do it.

    Args:
        database: Whose schema the office belongs to.
        key: Which of its offices.
        silence_seconds: A holder that has not asked for so long has lost it; longer than the pause between two pieces
            of work.
    """

    def __init__(self, database: Database, key: int, *, silence_seconds: float = 10.0) -> None:
        self._database = database
        self._key = key
        self._silence_seconds = silence_seconds
        self._session: Any = None
        self._held = False
        self._signed_at = 0.0

    async def held(self) -> bool:
        """Whether it is ours; takes it when it is free.

        Raises:
            DatabaseUnavailable: Nobody can say; it is not ours any more.
        """
        if self._session is not None:
            try:
                return await self._ask()
            except DatabaseUnavailable:
                self.leave()  # the session is over, which says nothing about the database
        try:
            self._session = await self._database.open_session(idle_seconds=self._silence_seconds)
            return await self._ask()
        except DatabaseUnavailable:
            self.leave()
            raise

    async def _ask(self) -> bool:
        if not self._held:
            self._held = bool(await self._session.fetch_value(_TAKE, key=self._key))
            self._signed_at = time.monotonic()
        elif time.monotonic() - self._signed_at > _SIGN_SECONDS:
            await self._session.execute(_SIGN)
            self._signed_at = time.monotonic()
        return self._held

    def leave(self) -> None:
        """Give it up, for another process to take."""
        if self._session is not None:
            self._session.terminate()
        self._session = None
        self._held = False
