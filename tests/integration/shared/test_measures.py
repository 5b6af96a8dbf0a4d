"""What waits is told in the metrics: in the outbox, in the stream, among the dead letters, and loops that stand."""

from datetime import UTC, datetime, timedelta

import pytest
from prometheus_client import REGISTRY

from shared.background import Loop
from shared.leader_lock import LeaderLock, leader_loop
from shared.measures import inbox_measures, measuring, outbox_measure
from shared.messaging import consumer as consumer_module
from shared.metrics import ORPHANS
from tests.support.harness import Harness, eventually, running


def value(name: str, **labels: str) -> float | None:
    return REGISTRY.get_sample_value(name, labels)


def in_a_minute() -> datetime:
    return datetime.now(UTC) + timedelta(minutes=1)


async def test_an_event_that_is_not_published_grows_old(harness: Harness) -> None:
    measure = outbox_measure(harness.database, in_a_minute)
    await measure()
    assert value("gpudev_outbox_oldest_seconds") == 0
    await harness.publish("one")
    await measure()
    assert 59 < (value("gpudev_outbox_oldest_seconds") or 0) < 75
    async with running(harness.relay.loop.run):

        async def published() -> bool:
            await measure()
            return value("gpudev_outbox_oldest_seconds") == 0

        await eventually(published, "nothing waits any more")


async def test_an_event_that_no_consumer_takes_grows_old_whatever_others_take(harness: Harness) -> None:
    consumer = harness.consumer()
    measure, _ = inbox_measures(harness.database, consumer, in_a_minute)
    harness.failing.add("bad")
    async with running(harness.relay.loop.run):
        async with running(consumer.loop.run):
            await harness.publish("good")
            await eventually(lambda: harness.seen, "the first event")

            async def nothing_waits() -> bool:
                await measure()
                return value("gpudev_inbox_oldest_seconds") == value("gpudev_inbox_waiting") == 0

            await eventually(nothing_waits, "it is acknowledged")
        await harness.publish("later")

        async def it_waits() -> bool:
            await measure()
            return value("gpudev_inbox_waiting") == 1

        await eventually(it_waits, "it is in the stream")
        assert 59 < (value("gpudev_inbox_oldest_seconds") or 0) < 75
        # one that fails again and again is the oldest, though the one behind it was taken
        async with running(consumer.loop.run):
            await eventually(nothing_waits, "taken")
            await harness.publish("bad")
            await harness.publish("behind")
            await eventually(lambda: ("behind", 1) in harness.seen, "the one behind it")
            await eventually(it_waits, "the one behind it is acknowledged, the failing one is not")
            assert (value("gpudev_inbox_oldest_seconds") or 0) > 59


async def test_dead_letters_are_counted_until_they_are_delivered(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(consumer_module, "MAX_ATTEMPTS", 1)
    consumer = harness.consumer()
    _, measure = inbox_measures(harness.database, consumer, in_a_minute)
    harness.failing.add("bad")
    async with running(harness.relay.loop.run, consumer.loop.run):
        await harness.publish("bad")

        async def parked() -> bool:
            await measure()
            return value("gpudev_dead_letters") == 1

        await eventually(parked, "parked")


async def test_a_measure_that_fails_leaves_the_others_their_turn_and_the_loop_says_so() -> None:
    done: list[str] = []

    async def fails() -> None:
        raise LookupError("no answer")

    async def works() -> None:
        done.append("measured")

    async with running(measuring([fails, works]).run):
        await eventually(lambda: done, "the second measure")
        await eventually(lambda: value("gpudev_loop_turns_total", loop="measure", outcome="failed"), "it has failed")


async def test_a_loop_without_a_good_turn_is_told_while_it_runs() -> None:
    async def fails() -> None:
        raise LookupError("never")

    now = [0.0]
    loop = Loop("lame", fails, period_seconds=0.01, stale_seconds=60, stopwatch=lambda: now[0])
    async with running(loop.run):
        await eventually(lambda: value("gpudev_loop_wedged", loop="lame") == 0, "it may still recover")
        now[0] = 61.0
        assert value("gpudev_loop_wedged", loop="lame") == 1
    assert value("gpudev_loop_wedged", loop="lame") is None


async def test_a_replica_that_no_longer_sweeps_withdraws_what_it_found(harness: Harness) -> None:
    ORPHANS.labels("pods").set(3)
    leader = LeaderLock(harness.database, "orph")
    assert await leader.held()

    async def sweep() -> None:
        raise AssertionError("another replica leads")

    terms = {"period_seconds": 0.05, "turn_seconds": 1.0}
    loop = leader_loop("sweeper", sweep, database=harness.database, lock="orph", following=ORPHANS.clear, **terms)
    async with running(loop.run):
        await eventually(lambda: value("gpudev_orphans", kind="pods") is None, "withdrawn")
    leader.release()
