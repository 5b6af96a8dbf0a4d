"""The pool, and transactions on it. Every failure to reach PostgreSQL is one error: DatabaseUnavailable."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Any, Protocol, TypeAlias

import asyncpg
import msgspec

from shared.database.dsn import driver_dsn
from shared.database.statement import Statement
from shared.errors import DatabaseUnavailable

Row: TypeAlias = Any
"""An asyncpg.Record: row["column"], **row, dict(row)."""

_ACQUIRE_SECONDS = 3.0
_COMMAND_SECONDS = 10.0
_RELEASE_SECONDS = 0.4
_SPARE_SECONDS = 60.0
"""A connection that was needed for a burst only goes back to the pool, which closes it after a while."""
_UNREACHABLE = (
    OSError,
    TimeoutError,
    asyncpg.InterfaceError,
    asyncpg.PostgresConnectionError,
    asyncpg.IdleInTransactionSessionTimeoutError,
    # classes 40, 53, 57 and 58: a deadlock, a full disk, somebody's intervention; the same may succeed in a while
    asyncpg.TransactionRollbackError,
    asyncpg.InsufficientResourcesError,
    asyncpg.OperatorInterventionError,
    asyncpg.PostgresSystemError,
    # a password that is being changed, a database that is being restored, a server that is no longer the primary
    asyncpg.InvalidAuthorizationSpecificationError,
    asyncpg.InvalidCatalogNameError,
    asyncpg.ReadOnlySQLTransactionError,
    asyncpg.exceptions.InternalClientError,
)


class Executor(Protocol):
    """What runs one statement: a Database (each on its own) or a Transaction (all or nothing)."""

    async def execute(self, statement: Statement, **parameters: Any) -> int:
        """Rows affected."""

    async def fetch_all(self, statement: Statement, **parameters: Any) -> list[Row]:
        """Every row."""

    async def fetch_one(self, statement: Statement, **parameters: Any) -> Row | None:
        """First row, None when there is none."""

    async def fetch_value(self, statement: Statement, **parameters: Any) -> Any:
        """First column of the first row, None when there is none."""


@contextmanager
def _reaching() -> Iterator[None]:
    try:
        yield
    except _UNREACHABLE as error:
        # asyncpg's DataError is an InterfaceError, but the caller's own mistake; a certificate that is refused is not
        if isinstance(error, ValueError) and not isinstance(error, ssl.SSLError):
            raise
        raise DatabaseUnavailable(cause=type(error).__name__, message=str(error)) from error


def _affected(status: str) -> int:
    last = status.rpartition(" ")[2]
    return int(last) if last.isdigit() else 0


class Transaction:
    """One open transaction. Network calls do not belong inside it.

    Callbacks given to `after_commit` run once the commit is known to hold.
    """

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self._after_commit: dict[Any, Callable[[], object]] = {}

    def after_commit(self, callback: Callable[[], object]) -> None:
        """Run `callback` after the commit; the same callback given twice runs once."""
        self._after_commit[callback] = callback

    async def execute(self, statement: Statement, **parameters: Any) -> int:
        """Run a statement; the number of rows affected."""
        with _reaching():
            return _affected(await self._connection.execute(statement.sql, *statement.arguments(parameters)))

    async def fetch_all(self, statement: Statement, **parameters: Any) -> list[Row]:
        """Every row."""
        with _reaching():
            rows: list[Row] = await self._connection.fetch(statement.sql, *statement.arguments(parameters))
            return rows

    async def fetch_one(self, statement: Statement, **parameters: Any) -> Row | None:
        """First row, None when there is none."""
        with _reaching():
            return await self._connection.fetchrow(statement.sql, *statement.arguments(parameters))

    async def fetch_value(self, statement: Statement, **parameters: Any) -> Any:
        """First column of the first row, None when there is none."""
        with _reaching():
            return await self._connection.fetchval(statement.sql, *statement.arguments(parameters))

    def committed(self) -> None:
        """Run the callbacks; called by Database once the commit holds."""
        for callback in self._after_commit.values():
            callback()


class Session(Transaction):
    """A connection of its own, outside the pool and outside any transaction; for locks that belong to a session."""

    @property
    def is_closed(self) -> bool:
        """Whether it is known to have ended; asks nobody."""
        return bool(self._connection.is_closed())

    def terminate(self) -> None:
        """Drop the connection at once."""
        self._connection.terminate()


class Database:
    """A pool of connections to the service's own schema.

    Connecting is lazy: a service starts while PostgreSQL is down and answers 503 until it is back.

    Args:
        dsn: postgresql:// URL of the service's own role, whose search_path is its own schema; libpq's options hold.
        pool_size: Connections at most.
        name: Seen in pg_stat_activity.
    """

    def __init__(self, dsn: str, *, pool_size: int = 10, name: str = "gpudev") -> None:
        self._dsn = driver_dsn(dsn)
        self._pool_size = pool_size
        self._name = name
        self._pool: Any = None
        self._busy = self._waiting = 0
        self._closing = False
        self._spare: list[tuple[Any, float]] = []
        """Connections that nobody uses, the last used one at the end, and when each was."""
        self._opening = asyncio.Lock()

    async def close(self) -> None:
        """Close the pool; connections that do not end in 3 s are dropped."""
        if self._pool is None:
            return
        self._closing = True
        try:
            await asyncio.wait_for(self._close_pool(), 3)
        except _UNREACHABLE:
            self._pool.terminate()
        self._pool, self._closing = None, False

    async def _close_pool(self) -> None:
        while self._spare:
            await self._pool.release(self._spare.pop()[0])
        await self._pool.close()

    async def execute(self, statement: Statement, **parameters: Any) -> int:
        """Run one statement on its own; the number of rows affected."""
        arguments = statement.arguments(parameters)
        async with self._connection() as connection:
            return _affected(await connection.execute(statement.sql, *arguments))

    async def fetch_all(self, statement: Statement, **parameters: Any) -> list[Row]:
        """Every row."""
        arguments = statement.arguments(parameters)
        async with self._connection() as connection:
            rows: list[Row] = await connection.fetch(statement.sql, *arguments)
            return rows

    async def fetch_one(self, statement: Statement, **parameters: Any) -> Row | None:
        """First row, None when there is none."""
        arguments = statement.arguments(parameters)
        async with self._connection() as connection:
            return await connection.fetchrow(statement.sql, *arguments)

    async def fetch_value(self, statement: Statement, **parameters: Any) -> Any:
        """First column of the first row, None when there is none."""
        arguments = statement.arguments(parameters)
        async with self._connection() as connection:
            return await connection.fetchval(statement.sql, *arguments)

    async def open_session(self, *, idle_seconds: float) -> Session:
        """A connection outside the pool, which PostgreSQL ends when it has not heard of it for `idle_seconds`."""
        with _reaching():
            return Session(
                await asyncpg.connect(
                    self._dsn,
                    timeout=_ACQUIRE_SECONDS,
                    command_timeout=_COMMAND_SECONDS,
                    server_settings={
                        "application_name": f"{self._name}-session",
                        "idle_session_timeout": str(round(1000 * idle_seconds)),
                    },
                )
            )

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Transaction]:
        """One transaction: committed when the block ends, rolled back when it raises.

        Raises:
            DatabaseUnavailable: Also when the connection broke in COMMIT: then the outcome is unknown, and the caller
                repeats with the same id or idempotency key.
        """
        async with self._connection() as connection:
            transaction = Transaction(connection)
            async with connection.transaction():
                yield transaction
        transaction.committed()

    @asynccontextmanager
    async def snapshot(self) -> AsyncIterator[Transaction]:
        """A transaction that only reads, and sees one instant in all its statements."""
        async with self._connection() as connection, connection.transaction(isolation="repeatable_read", readonly=True):
            yield Transaction(connection)

    def _connection(self) -> "_Loan":
        return _Loan(self)

    async def take(self) -> Any:
        """A connection, to be given back."""
        while self._spare:
            connection, _ = self._spare.pop()
            with suppress(asyncpg.InterfaceError):  # the pool has taken back what was lost
                if not connection.is_closed():
                    return connection
                await self._pool.release(connection)
        pool = await self._open_pool() if self._pool is None else self._pool
        # waiting with a time-out costs more than a short query; while there is room there is no wait
        self._waiting += 1
        try:
            return await pool.acquire(timeout=None if self._busy < self._pool_size else _ACQUIRE_SECONDS)
        finally:
            self._waiting -= 1

    async def give_back(self, connection: Any) -> None:
        """Keep it for whoever is next: to the pool and from it would cost as much as a short query's way."""
        if self._waiting or self._closing:
            await self._pool.release(connection)
            return
        now = asyncio.get_running_loop().time()
        self._spare.append((connection, now))
        if now - self._spare[0][1] > _SPARE_SECONDS:
            await self._pool.release(self._spare.pop(0)[0])

    async def drop(self, connection: Any) -> None:
        """Give it back after a failure.

        A statement that was given up is first cancelled in the server, which may be what hangs: nobody waits long for
        that, and the connection is dropped.
        """
        with suppress(TimeoutError):
            await self._pool.release(connection, timeout=_RELEASE_SECONDS)

    async def _open_pool(self) -> Any:
        async with self._opening:
            if self._pool is None:
                self._pool = await asyncpg.create_pool(
                    self._dsn,
                    min_size=0,
                    max_size=self._pool_size,
                    command_timeout=_COMMAND_SECONDS,
                    timeout=_ACQUIRE_SECONDS,
                    init=_prepare_connection,
                    reset=_keep_session,
                    server_settings={
                        "application_name": self._name,
                        # a replica that hangs in a transaction must not keep its locks
                        "idle_in_transaction_session_timeout": "15000",
                        # a plan that reads little of much seems dear: to compile it would take longer than to run it
                        "jit": "off",
                    },
                )
            return self._pool


class _Loan:
    """A connection for the length of a block."""

    __slots__ = ("_connection", "_database")

    def __init__(self, database: Database) -> None:
        self._database = database
        self._connection: Any = None

    async def __aenter__(self) -> Any:
        with _reaching():
            self._connection = await self._database.take()
        self._database._busy += 1  # noqa: SLF001 - a part of it
        return self._connection

    async def __aexit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        try:
            with _reaching():
                if error is None:
                    await self._database.give_back(self._connection)
                    return
                await self._database.drop(self._connection)
                raise error
        finally:
            self._database._busy -= 1  # noqa: SLF001 - a part of it


async def _prepare_connection(connection: Any) -> None:
    await connection.set_type_codec(
        "jsonb",
        schema="pg_catalog",
        encoder=lambda value: b"\x01" + msgspec.json.encode(value),
        decoder=lambda data: msgspec.json.decode(data[1:]),
        format="binary",
    )


async def _keep_session(_: Any) -> None:
    """Spare the round trip of asyncpg's own reset: no session state is ever set."""
