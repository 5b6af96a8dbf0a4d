from datetime import UTC, datetime
from typing import Any

import asyncpg
import nats
import pytest
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy

from shared.contracts.events import DEAD_LETTER_ROOT, STREAM
from shared.errors import DatabaseUnavailable
from shared.messaging import Consumer, Draft, record_event
from shared.messaging import consumer as consumer_module
from shared.messaging.outbox import oldest_unpublished
from tests.support.ground import Ground, eventually, running
from tests.support.servers import NatsServer


async def all_published(ground: Ground) -> bool:
    return await oldest_unpublished(ground.database) is None


async def test_events_arrive_once_and_in_the_order_of_their_changes(ground: Ground) -> None:
    consumer = ground.consumer()
    async with running(ground.relay.loop.run, consumer.loop.run):
        for version in range(1, 21):
            await ground.publish("one", version)
        await eventually(lambda: len(ground.seen) >= 20, "all events handled")
        await eventually(lambda: all_published(ground), "all marked")
    assert ground.seen == [("one", version) for version in range(1, 21)]


async def test_transactions_that_commit_out_of_id_order_are_both_published(ground: Ground) -> None:
    consumer = ground.consumer()
    async with running(ground.relay.loop.run, consumer.loop.run):
        async with ground.database.transaction() as slow:
            draft = Draft(data=ground.event("slow"), version=1, occurred_at=datetime.now(UTC))
            await record_event(slow, draft, ground.relay)
            await ground.publish("quick")
            await eventually(lambda: ("quick", 1) in ground.seen, "the later id, committed first")
        await eventually(lambda: ("slow", 1) in ground.seen, "the earlier id, committed last")


async def test_a_rolled_back_change_publishes_nothing(ground: Ground) -> None:
    draft = Draft(data=ground.event("never"), version=1, occurred_at=datetime.now(UTC))
    try:
        async with ground.database.transaction() as transaction:
            await record_event(transaction, draft, ground.relay)
            raise LookupError  # noqa: TRY301 - the rollback is what is tested
    except LookupError:
        pass
    consumer = ground.consumer()
    async with running(ground.relay.loop.run, consumer.loop.run):
        await ground.publish("after")
        await eventually(lambda: ground.seen, "the event after it")
    assert ground.seen == [("after", 1)]


async def test_a_redelivered_event_has_no_second_effect(ground: Ground) -> None:
    consumer = ground.consumer()
    async with running(ground.relay.loop.run, consumer.loop.run):
        event_id = await ground.publish("one")
        await eventually(lambda: ground.seen, "first delivery")
        await eventually(lambda: all_published(ground), "marked")
        message = await ground.broker.jetstream.get_last_msg("GPUDEV", f"gpudev.v1.{ground.name}.happened.one")
        assert message.data is not None
        # published again under no message id: NATS itself cannot know that it is the same
        await ground.broker.jetstream.publish(f"gpudev.v1.{ground.name}.happened.one", message.data)
        await ground.publish("two")
        await eventually(lambda: ("two", 1) in ground.seen, "the event behind the repeated one")
    assert str(event_id).encode() in message.data
    assert ground.seen == [("one", 1), ("two", 1)]


async def test_two_replicas_take_events_in_their_order_and_one_takes_over_from_the_other(ground: Ground) -> None:
    first, second = ground.consumer(), ground.consumer()
    async with running(ground.relay.loop.run, second.loop.run):
        async with running(first.loop.run):
            for version in range(1, 101):
                await ground.publish("one", version)
            await eventually(lambda: len(ground.seen) >= 100, "all handled")
        await ground.publish("one", 101)
        await eventually(lambda: len(ground.seen) >= 101, "handled by whoever is left")
    assert ground.seen == [("one", version) for version in range(1, 102)]


async def test_a_failing_event_is_parked_with_an_alarm_and_the_rest_flows_on(
    ground: Ground, nats_server: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(consumer_module, "_RETRY_SECONDS", (0.05, 0.05))
    monkeypatch.setattr(consumer_module, "MAX_ATTEMPTS", 2)
    ground.failing.add("bad")
    client = await nats.connect(nats_server.url)
    alarms = await client.subscribe(f"{DEAD_LETTER_ROOT}.{ground.name}.>")
    consumer = ground.consumer()
    async with running(ground.relay.loop.run, consumer.loop.run):
        await ground.publish("bad")
        await ground.publish("good")
        await eventually(lambda: ("good", 1) in ground.seen, "the event behind the bad one")
        alarm = await alarms.next_msg(timeout=10)
    await client.close()
    assert b'"bad"' in alarm.data
    assert ground.seen == [("good", 1)]


async def test_a_commit_before_publishing_is_published_on_return(ground: Ground) -> None:
    await ground.publish("before the crash")  # the relay does not run: the process died right after the commit
    assert not await all_published(ground)
    consumer = ground.consumer()
    async with running(ground.relay.loop.run, consumer.loop.run):
        await eventually(lambda: ground.seen, "published on return")
    assert ground.seen == [("before the crash", 1)]


async def test_every_event_reaches_the_inbox_once_though_the_stream_was_wiped(
    ground: Ground, nats_server: NatsServer
) -> None:
    consumer = ground.consumer()
    async with running(ground.relay.loop.run):
        await ground.publish("unread")  # acknowledged by the stream, read by nobody
        await eventually(lambda: all_published(ground), "acknowledged")
        nats_server.wipe_store()
        await ground.publish("while it is away")
        nats_server.process.start()
        async with running(consumer.loop.run):
            await ground.publish("after")
            await eventually(lambda: len(ground.seen) >= 3, "every event", seconds=20)
            await eventually(lambda: all_published(ground), "all marked")
    assert sorted(ground.seen) == [("after", 1), ("unread", 1), ("while it is away", 1)]


async def test_changes_are_accepted_while_the_broker_is_away(ground: Ground, nats_server: NatsServer) -> None:
    consumer = ground.consumer()
    async with running(ground.relay.loop.run, consumer.loop.run):
        await ground.publish("one")
        await eventually(lambda: ground.seen, "before the outage")
        nats_server.process.kill()
        for number in range(5):
            await ground.publish(f"away{number}")
        nats_server.process.start()
        await eventually(lambda: len(ground.seen) >= 6, "after the outage", seconds=20)
    assert sorted(ground.seen) == [*((f"away{number}", 1) for number in range(5)), ("one", 1)]


async def test_a_hung_relay_does_not_keep_the_other_replica_from_publishing(ground: Ground, ground_dsn: str) -> None:
    hung = await asyncpg.connect(ground_dsn)
    await ground.publish("one")
    async with hung.transaction():
        await hung.fetch("SELECT id FROM outbox FOR UPDATE")  # rows claimed by a replica that hangs
        await ground.publish("two")
        consumer = ground.consumer()
        async with running(ground.relay.loop.run, consumer.loop.run):
            await eventually(lambda: ("two", 1) in ground.seen, "the row that is free")
    await hung.close()


async def test_the_consumer_waits_for_the_database_without_using_up_attempts(
    ground: Ground, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(consumer_module, "MAX_ATTEMPTS", 1)
    consumer = ground.consumer()
    original = ground.database.transaction
    refusals = iter([True, True])

    def transaction() -> Any:
        if next(refusals, False):
            raise DatabaseUnavailable
        return original()

    async with running(ground.relay.loop.run):
        await ground.publish("one")
        await eventually(lambda: all_published(ground), "published")
    monkeypatch.setattr(ground.database, "transaction", transaction)
    async with running(consumer.loop.run):
        await eventually(lambda: ground.seen, "handled in the end")
    assert ground.seen == [("one", 1)]


CHANGES: dict[str, dict[str, Any]] = {
    "filter": {"filter_subjects": ["gpudev.v1.none.*.*"]},
    "never acknowledged": {"ack_policy": AckPolicy.NONE},
    "given up after one attempt": {"max_deliver": 1},
    "paused": {"pause_until": "2100-01-01T00:00:00Z"},
    "from now on": {"deliver_policy": DeliverPolicy.NEW},
    "deleted": {},
}


@pytest.mark.parametrize("what", list(CHANGES))
async def test_a_consumer_that_somebody_changed_is_put_right_and_what_it_missed_comes(
    ground: Ground, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(consumer_module, "CHECK_SECONDS", 1.0)
    consumer = ground.consumer()
    jetstream = ground.broker.jetstream
    async with running(ground.relay.loop.run, consumer.loop.run):
        await ground.publish("before")
        await eventually(lambda: ground.seen, "the first event")
        assert await _is_right(consumer)
        ours = (await jetstream.consumer_info(STREAM, ground.name)).config
        # made anew, as not all of it can be changed
        await jetstream.delete_consumer(STREAM, ground.name)
        if what != "deleted":
            await jetstream.add_consumer(STREAM, ours.evolve(**CHANGES[what]))
        _, fault = await consumer.state()
        assert fault is not None
        assert ground.name in fault
        await ground.publish("meanwhile")
        await eventually(lambda: ("meanwhile", 1) in ground.seen, "what it missed", seconds=10)
        await eventually(lambda: _is_right(consumer), "right again", seconds=10)
    assert ground.seen == [("before", 1), ("meanwhile", 1)]


async def test_a_consumer_of_an_older_version_goes_on_where_it_is(ground: Ground) -> None:
    consumer = ground.consumer()
    older = ConsumerConfig(durable_name=ground.name, filter_subjects=[f"gpudev.v1.{ground.name}.old.*"])
    await ground.broker.ensure_stream()
    before = await ground.broker.jetstream.add_consumer(STREAM, older)
    async with running(ground.relay.loop.run, consumer.loop.run):
        await eventually(lambda: _is_right(consumer), "renewed")
        await ground.publish("new")
        await eventually(lambda: ground.seen, "the new event")
    assert (await ground.broker.jetstream.consumer_info(STREAM, ground.name)).created == before.created


async def _is_right(consumer: Consumer) -> bool:
    waiting, fault = await consumer.state()
    return waiting is not None and fault is None
