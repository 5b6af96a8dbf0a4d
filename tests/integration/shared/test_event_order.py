"""Events come into the stream in the order of their changes and take effect in its order, whatever is lost."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import pytest
from nats.aio.msg import Msg
from nats.js.errors import NotFoundError

from shared.contracts.events import STREAM
from shared.database import Statement
from shared.database.locks import wait_for_session_lock
from shared.errors import DatabaseUnavailable
from shared.messaging import Draft, ordered_pull, record_event
from shared.messaging import consumer as consumer_module
from shared.messaging.pull import Pull
from tests.support.harness import END_SESSIONS, Harness, connected, eventually, running

_WAIT_TO_READ = Statement(wait_for_session_lock("inbx"))
_WAITING = (
    "SELECT count(*) FROM pg_stat_activity "
    "WHERE wait_event_type = 'Lock' AND wait_event = 'advisory' AND datname = current_database()"
)


async def publish(harness: Harness, *versions: int) -> None:
    """Events about one thing, in the stream."""
    async with running(harness.relay.loop.run):
        for version in versions:
            await harness.publish("one", version)
        await eventually(harness.all_published, "published")


async def with_consumer(harness: Harness) -> None:
    """A replica has made the consumer and is gone."""
    async with running(harness.consumer().loop.run):
        await publish(harness, 1)
        await eventually(lambda: harness.seen, "the consumer is there")


async def taken_from_between(harness: Harness, monkeypatch: pytest.MonkeyPatch, *, seconds: int = 1) -> Msg:
    """The second of three events, as a replica took it that does nothing with it, and that has so long for it."""
    monkeypatch.setattr(consumer_module, "_ACK_WAIT_SECONDS", seconds)
    await with_consumer(harness)
    await publish(harness, 2)
    pull = Pull(harness.broker.client, STREAM, harness.name)
    await pull.open()
    (taken,) = await pull.take(10, 30.0)
    await pull.close()
    await publish(harness, 3)
    return taken


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is under way elsewhere is waited for, however slowly a busy machine brings it back."""
    monkeypatch.setattr(ordered_pull, "_LATE_SECONDS", 60.0)


async def handled(harness: Harness, count: int) -> None:
    """The first so many events took effect, in their order."""
    await eventually(lambda: len(harness.seen) >= count, "handled in the end")
    assert harness.seen == [("one", version) for version in range(1, count + 1)]


async def test_what_came_while_the_database_was_away_takes_effect_in_its_order(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    consumer = harness.consumer()
    original = harness.database.transaction
    refusals = iter([True, True])  # to all together, and to the first by itself

    def transaction() -> Any:
        if next(refusals, False):
            raise DatabaseUnavailable
        return original()

    await publish(harness, 1, 2, 3, 4, 5)
    monkeypatch.setattr(harness.database, "transaction", transaction)
    async with running(consumer.loop.run):
        await handled(harness, 5)


@pytest.mark.usefixtures("patient")
async def test_what_a_dead_replica_had_begun_takes_effect_before_what_came_after_it(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    await taken_from_between(harness, monkeypatch)
    async with running(harness.consumer().loop.run):
        await handled(harness, 3)


@pytest.mark.usefixtures("patient")
async def test_what_comes_back_late_takes_effect_before_what_came_after_it(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    # it says that it goes on every 0.25 s, and on a busy machine late: not as late as that the server sends it again
    held = await taken_from_between(harness, monkeypatch, seconds=3)
    async with running(harness.consumer().loop.run):
        for _ in range(16):  # 4 s, longer than the time after which the server would have sent it again
            await held.in_progress()
            await asyncio.sleep(0.25)
        assert len(harness.seen) == 1, "the later one waits for it"
        await held.nak()
        await handled(harness, 3)


async def test_what_somebody_puts_off_does_not_hold_up_the_rest(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_off = await taken_from_between(harness, monkeypatch)
    await put_off.nak(delay=600)
    async with running(harness.consumer().loop.run):
        await eventually(lambda: ("one", 3) in harness.seen, "it is not waited for")


async def is_asked(harness: Harness) -> bool:
    """Whether somebody waits for an event."""
    return bool((await harness.broker.jetstream.consumer_info(STREAM, harness.name)).num_waiting)


@asynccontextmanager
async def asking(harness: Harness, seconds: float) -> AsyncIterator[asyncio.Task[list[Msg]]]:
    """A replica that has lost the lock and does not know it yet asks for an event, for so long."""
    pull = Pull(harness.broker.client, STREAM, harness.name)
    await pull.open()
    task = asyncio.create_task(pull.take(1, seconds))
    await eventually(lambda: is_asked(harness), "the server knows")
    yield task
    await task


@pytest.mark.usefixtures("patient")
async def test_who_takes_over_waits_until_the_other_does_not_ask_any_more(harness: Harness) -> None:
    await with_consumer(harness)
    async with asking(harness, 30.0) as others, running(harness.consumer().loop.run):
        await publish(harness, 2, 3)
        (taken,) = await others
        # it cannot do it, and says so late
        await asyncio.sleep(0.5)
        assert len(harness.seen) == 1, "the later one waits for it"
        await taken.nak()
        await handled(harness, 3)


@asynccontextmanager
async def another_reads(dsn: str) -> AsyncIterator[None]:
    """Who reads loses the lock with its connection, and does not have it back before the block ends."""
    async with connected(dsn) as another, connected(dsn) as connection:
        # it waits for the lock: it has it before anybody who only tries
        arguments = _WAIT_TO_READ.arguments({})
        waiting = asyncio.create_task(another.execute(_WAIT_TO_READ.sql, *arguments))
        await eventually(lambda: connection.fetchval(_WAITING), "it is next")
        await connection.fetch(END_SESSIONS)
        await waiting
        yield


async def test_who_has_lost_the_lock_while_it_asked_does_nothing_with_what_comes(
    harness: Harness, harness_dsn: str
) -> None:
    async with running(harness.consumer().loop.run):
        await publish(harness, 1)
        await eventually(lambda: harness.seen, "it reads")
        async with another_reads(harness_dsn):
            await publish(harness, 2)

            async def is_left_alone() -> bool:
                return not await is_asked(harness)

            await eventually(is_left_alone, "it asks no more")
            assert len(harness.seen) == 1
        await handled(harness, 2)


async def test_the_stream_takes_no_event_while_it_does_not_take_an_earlier_one(harness: Harness) -> None:
    await publish(harness, 1)
    stored = await harness.broker.jetstream.get_last_msg(STREAM, f"gpudev.v1.{harness.name}.happened.one")
    limit = len(stored.data or b"") + 250
    await harness.broker.jetstream.update_stream(harness.broker.stream.evolve(max_msg_size=limit))
    async with harness.database.transaction() as transaction:
        for version, state in ((2, "x" * 300), (3, "")):
            traceparent = f"00-{'1' * 32}-{'2' * 16}-01{state}"  # makes the earlier one too long
            draft = Draft(
                data=harness.event("one"), version=version, occurred_at=datetime.now(UTC), traceparent=traceparent
            )
            await record_event(transaction, draft, harness.relay)
    async with running(harness.relay.loop.run):
        await eventually(harness.relay.fault, "it is refused")
        await harness.publish("two")
        await eventually(lambda: _is_stored(harness, "two"), "what is about others goes on")
        assert (await harness.broker.jetstream.stream_info(STREAM)).state.messages == 2
        await harness.broker.jetstream.update_stream(harness.broker.stream)
        await eventually(harness.all_published, "published")
    async with running(harness.consumer().loop.run):
        await eventually(lambda: len(harness.seen) >= 4, "handled")
    assert [version for entity, version in harness.seen if entity == "one"] == [1, 2, 3]


async def _is_stored(harness: Harness, entity: str) -> bool:
    try:
        await harness.broker.jetstream.get_last_msg(STREAM, f"gpudev.v1.{harness.name}.happened.{entity}")
    except NotFoundError:
        return False
    return True
