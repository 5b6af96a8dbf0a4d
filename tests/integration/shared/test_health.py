"""Health that cannot be fooled: everything turns, and yet nothing gets done."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest

from shared.contracts.events import STREAM
from shared.contracts.health import ServiceHealth
from shared.database.locks import lock_key
from shared.messaging import Consumer
from shared.messaging.outbox import oldest_unpublished
from shared.web.drain import Drain
from shared.web.health import HealthCheck
from tests.support.harness import Harness, connected, eventually, nats_client, running
from tests.support.servers import NatsServer


@dataclass
class Hands:
    """A clock that the test moves."""

    at: float = 1000.0

    def __call__(self) -> float:
        return self.at


def health_of(harness: Harness, consumer: Consumer | None = None, **changes: Any) -> HealthCheck:
    return HealthCheck(
        **{  # type: ignore[arg-type]
            "service": "auth",
            "database": harness.database,
            "broker": harness.broker,
            "consumer": consumer,
            "relay": harness.relay,
            "loops": [harness.relay.loop, *([consumer.loop] if consumer else [])],
            "drain": Drain(),
            **changes,
        }
    )


async def is_healthy(health: HealthCheck) -> bool:
    state = await health.check()
    return (state.status, state.queue, state.faults) == ("healthy", "healthy", [])


def naming(health: HealthCheck, *words: str) -> Callable[[], Awaitable[ServiceHealth | None]]:
    async def found() -> ServiceHealth | None:
        state = await health.check()
        named = any(all(word in fault for word in words) for fault in state.faults)
        return state if named and (state.status, state.queue) == ("unhealthy", "unhealthy") else None

    return found


@asynccontextmanager
async def stream_with(nats_server: NatsServer, **changes: Any) -> AsyncIterator[None]:
    """Somebody has changed the stream."""
    async with nats_client(nats_server.url) as person:
        jetstream = person.jetstream()
        config = (await jetstream.stream_info(STREAM)).config
        await jetstream.update_stream(config.evolve(**changes))
        try:
            yield
        finally:
            await jetstream.update_stream(config)


async def test_a_relay_that_publishes_nowhere_is_unhealthy_by_name_and_well_again(
    harness: Harness, nats_server: NatsServer
) -> None:
    health = health_of(harness)
    async with running(harness.relay.loop.run):
        await harness.publish("one")
        await eventually(lambda: is_healthy(health), "healthy")
        async with stream_with(nats_server, subjects=["gpudev.none.>"]):
            # also when there is nothing to publish: the next event would be lost to those who wait for it
            await eventually(naming(health, STREAM, "gpudev.v1.>"), "the stream's fault")
        await eventually(lambda: is_healthy(health), "healthy again")


async def test_a_stream_that_refuses_events_is_unhealthy_by_name(harness: Harness, nats_server: NatsServer) -> None:
    health = health_of(harness)
    async with running(harness.relay.loop.run):
        await harness.publish("one")
        await eventually(harness.all_published, "published")
        await eventually(lambda: is_healthy(health), "healthy")
        async with stream_with(nats_server, max_msg_size=1):
            await harness.publish("two")
            await eventually(naming(health, "outbox_relay", STREAM, "1 events"), "the relay's fault")
        await eventually(lambda: is_healthy(health), "healthy again")


async def test_events_that_a_stranger_keeps_from_the_relay_are_told(harness: Harness, harness_dsn: str) -> None:
    """Its turns are good: rows that somebody holds are left out."""
    await harness.publish("one")
    recorded_at = await oldest_unpublished(harness.database)
    assert recorded_at is not None
    health = health_of(harness, clock=lambda: recorded_at + timedelta(seconds=9))
    async with connected(harness_dsn) as stranger, stranger.transaction(), running(harness.relay.loop.run):
        await stranger.fetch("SELECT id FROM outbox FOR UPDATE")
        await eventually(naming(health, "an event has waited 9 s"), "the event's age")
    await eventually_published(harness, health)


async def eventually_published(harness: Harness, health: HealthCheck) -> None:
    async with running(harness.relay.loop.run):
        await eventually(lambda: is_healthy(health), "healthy again")


@pytest.mark.parametrize("change", ["deleted", "filter", "paused"])
async def test_a_consumer_that_somebody_changed_is_unhealthy_by_name(harness: Harness, change: str) -> None:
    """Nobody puts it right here, as where the service lacks the right to."""
    consumer = harness.consumer()
    async with running(harness.relay.loop.run):
        async with running(consumer.loop.run):
            await harness.publish("one")
            await eventually(lambda: harness.seen, "the consumer")
        health = health_of(harness, consumer)
        await eventually(lambda: is_healthy(health), "healthy before")
        jetstream = harness.broker.jetstream
        ours = (await jetstream.consumer_info(STREAM, harness.name)).config
        await jetstream.delete_consumer(STREAM, harness.name)
        changes: dict[str, Any] = {
            "filter": {"filter_subjects": ["gpudev.v1.none.*.*"]},
            "paused": {"pause_until": "2100-01-01T00:00:00Z"},
        }
        if change != "deleted":
            await jetstream.add_consumer(STREAM, ours.evolve(**changes[change]))
        await eventually(naming(health, f"the consumer {harness.name}"), "the consumer's fault")


async def test_a_consumer_whose_replicas_all_stand_by_is_unhealthy_by_name(harness: Harness, harness_dsn: str) -> None:
    """Their turns are good: each believes that another reads."""
    hands = Hands()
    consumer = Consumer(
        name=harness.name,
        database=harness.database,
        broker=harness.broker,
        subscriptions=harness.subscriptions,
        stopwatch=hands,
    )
    health = health_of(harness, consumer)
    async with running(harness.relay.loop.run):
        async with running(consumer.loop.run):
            await harness.publish("one")
            await eventually(lambda: harness.seen, "the consumer")
        async with connected(harness_dsn) as stranger:
            lock = f"pg_try_advisory_lock({lock_key('inbx')}, hashtext(current_schema()))"
            await eventually(lambda: stranger.fetchval(f"SELECT {lock}"), "the lock of those who read")

            async def asks_no_more() -> bool:
                return not (await harness.broker.jetstream.consumer_info(STREAM, harness.name)).num_waiting

            await eventually(asks_no_more, "the last fetch of who read is over")
            async with running(consumer.loop.run):
                await harness.publish("two")
                waiting = f"{harness.name} has taken none of 1 events"

                async def waits() -> bool:
                    return (await health.check()).unprocessed_messages == 1

                await eventually(waits, "the event waits")
                await eventually(lambda: is_healthy(health), "healthy: it may just have come")
                hands.at += 16
                await eventually(naming(health, waiting), "the standstill")
                await stranger.close()
                await eventually(lambda: ("two", 1) in harness.seen, "read in the end")
                await eventually(lambda: is_healthy(health), "healthy again")


async def test_a_services_own_checks_are_told(harness: Harness) -> None:
    faults: list[str] = []
    health = health_of(harness, checks=[lambda: faults[0] if faults else None])
    await eventually(lambda: is_healthy(health), "healthy before")
    faults.append("scheduler: stands")
    state = await health.check()
    assert (state.status, state.queue, state.faults) == ("unhealthy", "healthy", ["scheduler: stands"])
