"""Death at a chosen point: before or after a write to the tables or a call of the outside world."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

from shared.database import Database, Statement, Transaction


class Crash(BaseException):
    """The process is gone: nothing catches it, and nothing of it runs any more."""


class CrashPoints:
    """The points at which a process may die, counted as they pass; at one of them it does.

    Args:
        at: Number of the point of its death, from 0; None: it lives.
    """

    def __init__(self, at: int | None = None) -> None:
        self._at = at
        self.passed = 0
        self.crashed = False
        self.under_way = 0
        """Calls that have begun and not ended: what the dead had sent off may still have its effect."""

    def point(self) -> None:
        """A point passes; the dead do nothing more."""
        self.crashed = self.crashed or self.passed == self._at
        if self.crashed:
            raise Crash
        self.passed += 1

    @contextmanager
    def around(self) -> Iterator[None]:
        """A point before a call and one after it."""
        self.point()
        self.under_way += 1
        try:
            yield
        finally:
            self.under_way -= 1
        self.point()

    @contextmanager
    def within(self, at: int | None) -> Iterator[None]:
        """Of the points of this block, it dies at that one; once dead, it stays dead."""
        self._at = None if at is None else self.passed + at
        yield
        self._at = None


class CrashingDatabase(Database):
    """Its user dies at a point: around a write of its own, before a commit, or right after one.

    Args:
        dsn: As of a database.
        points: That pass here.
        statements: Also before each statement of a transaction.
    """

    def __init__(self, dsn: str, points: CrashPoints, *, pool_size: int = 4, statements: bool = False) -> None:
        super().__init__(dsn, pool_size=pool_size)
        self._points = points
        self._statements = statements

    async def execute(self, statement: Statement, **parameters: Any) -> int:
        with self._points.around():
            return await super().execute(statement, **parameters)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Transaction]:
        async with super().transaction() as transaction:
            yield _CountedTransaction(transaction, self._points) if self._statements else transaction
            self._points.point()
        self._points.point()


class _CountedTransaction(Transaction):
    """A point before each statement."""

    def __init__(self, transaction: Transaction, points: CrashPoints) -> None:
        super().__init__(transaction._connection)
        self._after_commit = transaction._after_commit
        self._points = points

    async def execute(self, statement: Statement, **parameters: Any) -> int:
        self._points.point()
        return await super().execute(statement, **parameters)

    async def fetch_all(self, statement: Statement, **parameters: Any) -> list[Any]:
        self._points.point()
        return await super().fetch_all(statement, **parameters)

    async def fetch_one(self, statement: Statement, **parameters: Any) -> Any:
        self._points.point()
        return await super().fetch_one(statement, **parameters)

    async def fetch_value(self, statement: Statement, **parameters: Any) -> Any:
        self._points.point()
        return await super().fetch_value(statement, **parameters)
