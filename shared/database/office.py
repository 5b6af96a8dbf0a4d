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

_SILENCE_SECONDS = 10
_SIGN_SECONDS = 2.0
_KEY = sa.bindparam("key", type_=sa.Integer)
_TAKE = Statement(sa.select(sa.func.pg_try_advisory_lock(_KEY, sa.func.hashtext(sa.func.current_schema()))))
_SIGN = Statement(sa.select(sa.literal(1)))


class Office:
    """To be asked before each piece of work: whether this process may do it.

    Args:
        database: Whose schema the office belongs to.
        key: Which of its offices.
    """

    def __init__(self, database: Database, key: int) -> None:
        self._database = database
        self._key = key
        self._session: Any = None
        self._held = False
        self._signed_at = 0.0

    async def held(self) -> bool:
        """Whether it is ours; takes it when it is free.

        Raises:
            DatabaseUnavailable: Nobody can say; it is not ours any more.
        """
        try:
            if self._session is None:
                self._session = await self._database.open_session(idle_seconds=_SILENCE_SECONDS)
            if not self._held:
                self._held = bool(await self._session.fetch_value(_TAKE, key=self._key))
                self._signed_at = time.monotonic()
            elif time.monotonic() - self._signed_at > _SIGN_SECONDS:
                await self._session.execute(_SIGN)
                self._signed_at = time.monotonic()
        except DatabaseUnavailable:
            self.leave()
            raise
        return self._held

    def leave(self) -> None:
        """Give it up, for another process to take."""
        if self._session is not None:
            self._session.terminate()
        self._session = None
        self._held = False
