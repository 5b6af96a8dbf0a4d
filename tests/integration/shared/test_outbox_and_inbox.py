import asyncio
from datetime import UTC, datetime
from typing import Any

import pytest
import sqlalchemy as sa
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy
from prometheus_client import REGISTRY

from shared.contracts.events import DEAD_LETTER_ROOT, STREAM
from shared.database import Statement
from shared.database.tables import inbox
from shared.errors import DatabaseUnavailable
from shared.messaging import Consumer, Delivery, Draft, record_event
from shared.messaging import consumer as consumer_module
from shared.messaging import pull as pull_module
from tests.support.harness import Harness, connected, eventually, nats_client, running
from tests.support.servers import NatsServer


async def test_events_arrive_once_and_in_the_order_of_their_changes(harness: Harness) -> None:
    consumer = harness.consumer()
    async with running(harness.relay.loop.run, consumer.loop.run):
        for version in range(1, 21):
            await harness.publish("one", version)
        await eventually(lambda: len(harness.seen) >= 20, "all events handled")
        await eventually(harness.all_published, "all marked")
    assert harness.seen == [("one", version) for version in range(1, 21)]


async def test_transactions_that_commit_out_of_id_order_are_both_published(harness: Harness) -> None:
    consumer = harness.consumer()
    async with running(harness.relay.loop.run, consumer.loop.run):
        async with harness.database.transaction() as slow:
            draft = Draft(data=harness.event("slow"), version=1, occurred_at=datetime.now(UTC))
            await record_event(slow, draft, harness.relay)
            await harness.publish("quick")
            await eventually(lambda: ("quick", 1) in harness.seen, "the later id, committed first")
        await eventually(lambda: ("slow", 1) in harness.seen, "the earlier id, committed last")


async def test_a_rolled_back_change_publishes_nothing(harness: Harness) -> None:
    draft = Draft(data=harness.event("never"), version=1, occurred_at=datetime.now(UTC))
    try:
        async with harness.database.transaction() as transaction:
            await record_event(transaction, draft, harness.relay)
            raise LookupError  # noqa: TRY301 - the rollback is what is tested
    except LookupError:
        pass
    consumer = harness.consumer()
    async with running(harness.relay.loop.run, consumer.loop.run):
        await harness.publish("after")
        await eventually(lambda: harness.seen, "the event after it")
    assert harness.seen == [("after", 1)]


async def test_a_redelivered_event_has_no_second_effect(harness: Harness) -> None:
    consumer = harness.consumer()
    async with running(harness.relay.loop.run, consumer.loop.run):
        event_id = await harness.publish("one")
        await eventually(lambda: harness.seen, "first delivery")
        await eventually(harness.all_published, "marked")
        message = await harness.broker.jetstream.get_last_msg("GPUDEV", f"gpudev.v1.{harness.name}.happened.one")
        assert message.data is not None
        # published again under no message id: NATS itself cannot know that it is the same
        await harness.broker.jetstream.publish(f"gpudev.v1.{harness.name}.happened.one", message.data)
        await harness.publish("two")
        await eventually(lambda: ("two", 1) in harness.seen, "the event behind the repeated one")
    assert str(event_id).encode() in message.data
    assert harness.seen == [("one", 1), ("two", 1)]


async def test_two_replicas_take_events_in_their_order_and_one_takes_over_from_the_other(harness: Harness) -> None:
    first, second = harness.consumer(), harness.consumer()
    async with running(harness.relay.loop.run, second.loop.run):
        async with running(first.loop.run):
            for version in range(1, 101):
                await harness.publish("one", version)
            await eventually(lambda: len(harness.seen) >= 100, "all handled")
        await harness.publish("one", 101)
        await eventually(lambda: len(harness.seen) >= 101, "handled by whoever is left")
    assert harness.seen == [("one", version) for version in range(1, 102)]


async def test_a_failing_event_is_parked_with_an_alarm_and_the_rest_flows_on(
    harness: Harness, nats_server: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(consumer_module, "_RETRY_SECONDS", (0.05, 0.05))
    monkeypatch.setattr(consumer_module, "MAX_ATTEMPTS", 2)
    harness.failing.add("bad")
    consumer = harness.consumer()
    async with nats_client(nats_server.url) as client, running(harness.relay.loop.run, consumer.loop.run):
        alarms = await client.subscribe(f"{DEAD_LETTER_ROOT}.{harness.name}.>")
        await harness.publish("bad")
        await harness.publish("good")
        await eventually(lambda: ("good", 1) in harness.seen, "the event behind the bad one")
        alarm = await alarms.next_msg(timeout=60)
    assert b'"bad"' in alarm.data
    assert harness.seen == [("good", 1)]


async def test_events_that_wait_together_are_handled_together_in_their_order(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    _let_the_server_take_its_time(monkeypatch)
    harness.together = True
    for version in range(1, 101):
        await harness.publish("one", version)
    async with running(harness.relay.loop.run):
        await eventually(harness.all_published, "published")
    consumer = harness.consumer()
    async with running(consumer.loop.run):
        await eventually(lambda: len(harness.seen) >= 100, "all handled")
    assert harness.seen == [("one", version) for version in range(1, 101)]
    assert harness.batches == [100]


def _let_the_server_take_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """What waits together comes together, also where the server has no processor between two of its messages."""
    monkeypatch.setattr(pull_module, "_PAUSE_SECONDS", 1.0)


async def test_of_events_that_come_together_one_that_fails_holds_up_no_other(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(consumer_module, "_RETRY_SECONDS", (0.05, 0.05))
    _let_the_server_take_its_time(monkeypatch)
    harness.together = True
    harness.failing.add("bad")
    for entity in ("good", "bad", "better"):
        await harness.publish(entity)
    async with running(harness.relay.loop.run):
        await eventually(harness.all_published, "published")
    consumer = harness.consumer()
    async with running(consumer.loop.run):
        await eventually(lambda: ("better", 1) in harness.seen, "the event behind the bad one")
        harness.failing.clear()
        await eventually(lambda: ("bad", 1) in harness.seen, "the bad one, once it is good")
    # what the batch had done before it failed was rolled back with it
    assert harness.seen == [("good", 1), ("good", 1), ("better", 1), ("bad", 1)]
    assert harness.batches == [3, 1, 1, 1, *harness.batches[4:]]


async def test_an_event_that_comes_twice_at_once_takes_effect_once(harness: Harness) -> None:
    harness.together = True
    await harness.publish("one")
    async with running(harness.relay.loop.run):
        await eventually(harness.all_published, "published")
    message = await harness.broker.jetstream.get_last_msg("GPUDEV", f"gpudev.v1.{harness.name}.happened.one")
    assert message.data is not None
    async with harness.database.transaction() as transaction:
        outcomes = await Delivery(harness.subscriptions).handle_all(
            transaction, [message.data, message.data], datetime.now(UTC)
        )
    assert [outcome for _, outcome in outcomes] == ["done", "repeated"]
    assert harness.seen == [("one", 1)]


async def test_an_event_that_means_nothing_to_a_service_leaves_no_row_in_its_inbox(harness: Harness) -> None:
    harness.indifferent.add("far away")
    consumer = harness.consumer()
    async with running(harness.relay.loop.run, consumer.loop.run):
        await harness.publish("far away")
        await harness.publish("near")
        await eventually(lambda: harness.seen, "the event behind it")
        await eventually(lambda: _all_acknowledged(harness), "that it was is committed")
    assert harness.seen == [("near", 1)]
    assert await harness.database.fetch_value(Statement(sa.select(sa.func.count()).select_from(inbox))) == 1


async def test_a_commit_before_publishing_is_published_on_return(harness: Harness) -> None:
    await harness.publish("before the crash")  # the relay does not run: the process died right after the commit
    assert not await harness.all_published()
    consumer = harness.consumer()
    async with running(harness.relay.loop.run, consumer.loop.run):
        await eventually(lambda: harness.seen, "published on return")
    assert harness.seen == [("before the crash", 1)]


async def test_every_event_reaches_the_inbox_once_though_the_stream_was_wiped(
    harness: Harness, nats_server: NatsServer
) -> None:
    consumer = harness.consumer()
    async with running(harness.relay.loop.run):
        await harness.publish("unread")  # acknowledged by the stream, read by nobody
        await eventually(harness.all_published, "acknowledged")
        nats_server.wipe_store()
        await harness.publish("while it is away")
        nats_server.process.start()
        async with running(consumer.loop.run):
            await harness.publish("after")
            await eventually(lambda: len(harness.seen) >= 3, "every event")
            await eventually(harness.all_published, "all marked")
    assert sorted(harness.seen) == [("after", 1), ("unread", 1), ("while it is away", 1)]


_MANY_PUBLISHED = Statement(
    sa.text(
        "INSERT INTO outbox (event_id, type, subject, entity_id, entity_version, occurred_at, data, published_at, "
        "stream_sequence) SELECT gen_random_uuid(), type, subject, entity_id, entity_version, occurred_at, data, "
        "now(), 0 FROM outbox, generate_series(1, 36_000)"
    )
)
_MARKED_SLOWLY = (
    Statement(
        sa.text(
            "CREATE FUNCTION slowly() RETURNS trigger LANGUAGE plpgsql AS "
            "$$ BEGIN PERFORM pg_sleep(1); RETURN NEW; END $$"
        )
    ),
    # a second for 3,000 events
    Statement(
        sa.text(
            "CREATE TRIGGER slowly BEFORE UPDATE ON outbox FOR EACH ROW "
            "WHEN (NEW.published_at IS NULL AND OLD.id % 3000 = 0) EXECUTE FUNCTION slowly()"
        )
    ),
)
_MARKED_AS_EVER = Statement(sa.text("DROP FUNCTION slowly CASCADE"))
_STATES = Statement(
    sa.text("SELECT count(*) FILTER (WHERE published_at IS NULL) AS waiting, count(*) AS all FROM outbox")
)


def _published_again() -> float:
    return REGISTRY.get_sample_value("gpudev_outbox_republished_total") or 0.0


@pytest.mark.long
async def test_a_stream_is_filled_again_from_an_outbox_that_no_single_statement_could_mark(
    harness: Harness, nats_server: NatsServer
) -> None:
    """A table of millions of events, or a slow disk, takes longer than a statement may."""
    async with running(harness.relay.loop.run):
        await harness.publish("before")
        await eventually(harness.all_published, "acknowledged")
    before = _published_again()
    await harness.database.execute(_MANY_PUBLISHED)
    for statement in _MARKED_SLOWLY:
        await harness.database.execute(statement)
    try:
        nats_server.wipe_store()
        nats_server.process.start()
        async with running(harness.relay.loop.run):

            async def marked() -> bool:
                counts = await harness.database.fetch_one(_STATES)
                return counts is not None and counts["waiting"] > 0

            await eventually(marked, "events wait to be published again")
            assert _published_again() - before == 36_001, "what is not marked yet would be overtaken"
    finally:
        await harness.database.execute(_MARKED_AS_EVER)


async def test_changes_are_accepted_while_the_broker_is_away(harness: Harness, nats_server: NatsServer) -> None:
    consumer = harness.consumer()
    async with running(harness.relay.loop.run, consumer.loop.run):
        await harness.publish("one")
        await eventually(lambda: harness.seen, "before the outage")
        nats_server.process.kill()
        for number in range(5):
            await harness.publish(f"away{number}")
        nats_server.process.start()
        await eventually(lambda: len(harness.seen) >= 6, "after the outage")
    assert sorted(harness.seen) == [*((f"away{number}", 1) for number in range(5)), ("one", 1)]


async def test_events_that_were_lost_with_their_connection_leave_their_room_to_others(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    events = 50  # nats-py's own bound is 4,000, which some breaks a week reach in a year
    client = harness.broker.client
    jetstream = client.jetstream(publish_async_max_pending=events)
    monkeypatch.setattr(harness.broker, "_jetstream", jetstream)
    for number in range(events):
        await harness.publish(f"event{number}")

    async def break_connection() -> None:
        while not jetstream.publish_async_pending():  # noqa: ASYNC110 - before any is acknowledged
            await asyncio.sleep(0)
        await client.force_reconnect()

    async with running(harness.relay.loop.run, break_connection):
        await eventually(harness.all_published, "all are published by the connection that follows")
    assert client.stats["reconnects"] == 1
    assert jetstream.publish_async_pending() == 0


async def test_a_hung_relay_does_not_keep_the_other_replica_from_publishing(harness: Harness, harness_dsn: str) -> None:
    await harness.publish("one")
    async with connected(harness_dsn) as hung, hung.transaction():
        await hung.fetch("SELECT id FROM outbox FOR UPDATE")  # rows claimed by a replica that hangs
        await harness.publish("two")
        consumer = harness.consumer()
        async with running(harness.relay.loop.run, consumer.loop.run):
            await eventually(lambda: ("two", 1) in harness.seen, "the row that is free")


async def test_the_consumer_waits_for_the_database_without_using_up_attempts(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(consumer_module, "MAX_ATTEMPTS", 1)
    consumer = harness.consumer()
    original = harness.database.transaction
    refusals = iter([True, True])

    def transaction() -> Any:
        if next(refusals, False):
            raise DatabaseUnavailable
        return original()

    async with running(harness.relay.loop.run):
        await harness.publish("one")
        await eventually(harness.all_published, "published")
    monkeypatch.setattr(harness.database, "transaction", transaction)
    async with running(consumer.loop.run):
        await eventually(lambda: harness.seen, "handled in the end")
    assert harness.seen == [("one", 1)]


async def _unacknowledged(harness: Harness) -> int:
    return (await harness.broker.jetstream.consumer_info(STREAM, harness.name)).num_ack_pending or 0


async def _all_acknowledged(harness: Harness) -> bool:
    return await _unacknowledged(harness) == 0


@pytest.fixture
def unhurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """A replica has as long to hand over as a busy machine takes."""
    monkeypatch.setattr(consumer_module, "_HAND_OVER_SECONDS", 60.0)


@pytest.mark.usefixtures("unhurried")
async def test_who_hands_over_does_what_was_taken_and_leaves_nothing_that_another_waits_for(harness: Harness) -> None:
    first, second = harness.consumer(), harness.consumer()
    harness.held_up = {"one"}
    async with running(harness.relay.loop.run, first.loop.run):
        await harness.publish("one")
        await eventually(lambda: harness.begun, "it is being worked on")
        handing_over = asyncio.create_task(first.hand_over())
        await harness.publish("two")
        await eventually(harness.all_published, "published")
        assert await _unacknowledged(harness) == 1, "the second is not taken any more"
        harness.gate.set()
        await handing_over
        assert harness.seen == [("one", 1)]
        assert await _unacknowledged(harness) == 0
        async with running(second.loop.run):
            await eventually(lambda: len(harness.seen) > 1, "the rest, by the other")
    assert harness.seen == [("one", 1), ("two", 1)]


@pytest.mark.usefixtures("unhurried")
@pytest.mark.parametrize("moment", range(10))
async def test_events_that_come_while_it_hands_over_are_done_by_one_or_the_other(harness: Harness, moment: int) -> None:
    first, second = harness.consumer(), harness.consumer()
    async with running(harness.relay.loop.run):
        async with running(first.loop.run):
            await harness.publish("one", 1)
            await eventually(lambda: harness.seen, "it reads")
            publishing = asyncio.create_task(_publish_all(harness, 40))
            await eventually(lambda: len(harness.seen) > 3 * moment, "amid them")
            await first.hand_over()
            assert await _unacknowledged(harness) == 0
            handled = len(harness.seen)
        await publishing
        assert len(harness.seen) == handled, "it takes none after that"
        async with running(second.loop.run):
            await eventually(lambda: len(harness.seen) >= 40, "all")
    assert harness.seen == [("one", version) for version in range(1, 41)]


async def _publish_all(harness: Harness, count: int) -> None:
    for version in range(2, count + 1):
        await harness.publish("one", version)


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
    harness: Harness, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(consumer_module, "CHECK_SECONDS", 1.0)
    consumer = harness.consumer()
    jetstream = harness.broker.jetstream
    async with running(harness.relay.loop.run, consumer.loop.run):
        await harness.publish("before")
        await eventually(lambda: harness.seen, "the first event")
        assert await _is_right(consumer)
        ours = (await jetstream.consumer_info(STREAM, harness.name)).config
        # made anew, as not all of it can be changed
        await jetstream.delete_consumer(STREAM, harness.name)
        if what != "deleted":
            await jetstream.add_consumer(STREAM, ours.evolve(**CHANGES[what]))
        _, fault = await consumer.state()
        assert fault is not None
        assert harness.name in fault
        await harness.publish("meanwhile")
        await eventually(lambda: ("meanwhile", 1) in harness.seen, "what it missed")
        await eventually(lambda: _is_right(consumer), "right again")
    assert harness.seen == [("before", 1), ("meanwhile", 1)]


async def test_a_consumer_of_an_older_version_goes_on_where_it_is(harness: Harness) -> None:
    consumer = harness.consumer()
    older = ConsumerConfig(durable_name=harness.name, filter_subjects=[f"gpudev.v1.{harness.name}.old.*"])
    await harness.broker.ensure_stream()
    before = await harness.broker.jetstream.add_consumer(STREAM, older)
    async with running(harness.relay.loop.run, consumer.loop.run):
        await eventually(lambda: _is_right(consumer), "renewed")
        await harness.publish("new")
        await eventually(lambda: harness.seen, "the new event")
    assert (await harness.broker.jetstream.consumer_info(STREAM, harness.name)).created == before.created


async def _is_right(consumer: Consumer) -> bool:
    waiting, fault = await consumer.state()
    return waiting is not None and fault is None
