"""Connections that are kept for whoever is next."""

import asyncio
from collections.abc import AsyncIterator, Iterator

import asyncpg
import pytest
import sqlalchemy as sa

from shared.database import Database, Statement
from shared.errors import DatabaseUnavailable
from tests.support.harness import eventually
from tests.support.servers import PostgresServer

MY_PID = Statement(sa.text("SELECT pg_backend_pid()"))
SLOW = Statement(sa.text("SELECT pg_backend_pid() FROM pg_sleep(0.02)"))
WRONG = Statement(sa.text("SELECT 1 / 0"))
TERMINATE = Statement(sa.text("SELECT pg_terminate_backend(:pid)").bindparams(sa.bindparam("pid", type_=sa.Integer)))
FOR_EVER = Statement(sa.text("SELECT pg_sleep(600)"))
CANCEL_BUSY = Statement(
    sa.text(
        "SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE pid = :pid AND query LIKE '%pg_sleep(600)'"
    ).bindparams(sa.bindparam("pid", type_=sa.Integer))
)
OPEN = Statement(sa.text("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'pooled'"))


@pytest.fixture
def dsn(postgres_server: PostgresServer) -> Iterator[str]:
    dsn = postgres_server.make_service_database("disks")
    yield dsn
    postgres_server.drop_database(dsn)


@pytest.fixture
async def observer(dsn: str) -> AsyncIterator[Database]:
    database = Database(dsn, pool_size=1, name="observer")
    yield database
    await database.close()


@pytest.fixture
async def database(dsn: str) -> AsyncIterator[Database]:
    database = Database(dsn, pool_size=2, name="pooled")
    yield database
    await database.close()


async def test_statements_that_come_one_after_the_other_share_a_connection(database: Database) -> None:
    assert len({await database.fetch_value(MY_PID) for _ in range(5)}) == 1


async def test_more_statements_than_connections_all_have_their_turn(database: Database) -> None:
    pids = await asyncio.gather(*(database.fetch_value(SLOW) for _ in range(40)))
    assert (len(pids), len(set(pids))) == (40, 2)
    assert await database.fetch_value(MY_PID) in pids


async def test_who_waits_for_a_connection_gets_the_next_one_that_is_free(database: Database) -> None:
    async with database.transaction(), asyncio.timeout(60):
        for _ in range(20):
            assert len(await asyncio.gather(*(database.fetch_value(SLOW) for _ in range(3)))) == 3


async def test_a_connection_that_the_server_has_ended_is_replaced(database: Database, observer: Database) -> None:
    first = await database.fetch_value(MY_PID)
    assert await observer.fetch_value(TERMINATE, pid=first)
    await eventually(lambda: _no_longer(observer), "the server has ended it")
    assert await database.fetch_value(MY_PID) != first


async def _no_longer(observer: Database) -> bool:
    return bool(await observer.fetch_value(OPEN) == 0)


async def test_statements_that_fail_or_are_given_up_cost_no_connection(database: Database) -> None:
    for _ in range(5):
        with pytest.raises(asyncpg.DivisionByZeroError):
            await database.fetch_value(WRONG)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.001):
                await database.fetch_value(SLOW)
    assert len(set(await asyncio.gather(*(database.fetch_value(SLOW) for _ in range(4))))) == 2


async def test_the_end_leaves_no_connection_and_it_may_begin_again(database: Database, observer: Database) -> None:
    await asyncio.gather(*(database.fetch_value(SLOW) for _ in range(4)))
    await database.close()
    await eventually(lambda: _no_longer(observer), "none is left")
    assert await database.fetch_value(MY_PID)


async def test_a_snapshot_does_not_see_what_commits_meanwhile(database: Database, observer: Database) -> None:
    await observer.execute(Statement(sa.text("CREATE TABLE seen (id integer)")))
    count = Statement(sa.text("SELECT count(*) FROM seen"))
    async with database.snapshot() as snapshot:
        assert await snapshot.fetch_value(count) == 0
        await observer.execute(Statement(sa.text("INSERT INTO seen VALUES (1)")))
        assert await snapshot.fetch_value(count) == 0
    assert await database.fetch_value(count) == 1


async def test_what_the_server_gives_up_may_be_tried_again(database: Database, observer: Database) -> None:
    pid = await database.fetch_value(MY_PID)
    waiting = asyncio.create_task(database.fetch_value(FOR_EVER))
    await eventually(lambda: observer.execute(CANCEL_BUSY, pid=pid), "it is cancelled by somebody")
    with pytest.raises(DatabaseUnavailable):
        await waiting


async def test_who_loses_in_a_deadlock_may_try_again(database: Database, observer: Database) -> None:
    await observer.execute(Statement(sa.text("CREATE TABLE locked (id integer)")))
    await observer.execute(Statement(sa.text("INSERT INTO locked VALUES (1), (2)")))
    lock = Statement(sa.text("SELECT id FROM locked WHERE id = :id FOR UPDATE"))
    both_hold_one = asyncio.Barrier(2)

    async def lock_both(first: int, second: int) -> None:
        async with database.transaction() as transaction:
            await transaction.execute(lock, id=first)
            await both_hold_one.wait()
            await transaction.execute(lock, id=second)

    outcomes = await asyncio.gather(lock_both(1, 2), lock_both(2, 1), return_exceptions=True)
    assert sorted(type(outcome) for outcome in outcomes if outcome is not None) == [DatabaseUnavailable]
