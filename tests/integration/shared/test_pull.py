"""What is taken of a durable consumer at once, how long nothing is waited for, and what becomes of a refusal."""

import asyncio
import time

import nats.errors
import pytest
from nats.js.api import AckPolicy, ConsumerConfig
from nats.js.errors import APIError

from shared.contracts.events import STREAM
from shared.messaging import pull as pull_module
from shared.messaging.pull import Pull
from tests.support.harness import Harness, eventually
from tests.support.promises import promised
from tests.support.servers import NatsServer

LONG = 20.0


@pytest.fixture
async def pull(harness: Harness, monkeypatch: pytest.MonkeyPatch) -> Pull:
    # what waits comes together, also where the server has no processor between two of its messages
    monkeypatch.setattr(pull_module, "_PAUSE_SECONDS", 1.0)
    await harness.broker.ensure_stream()
    config = ConsumerConfig(
        durable_name=harness.name, ack_policy=AckPolicy.EXPLICIT, filter_subject=f"gpudev.v1.{harness.name}.>"
    )
    await harness.broker.jetstream.add_consumer(STREAM, config)
    pull = Pull(harness.broker.client, STREAM, harness.name)
    await pull.open()
    return pull


async def put(harness: Harness, *bodies: str) -> None:
    for body in bodies:
        await harness.broker.jetstream.publish(f"gpudev.v1.{harness.name}.happened.one", body.encode())


async def taken(pull: Pull, most: int, seconds: float) -> list[str]:
    return [message.data.decode() for message in await pull.take(most, seconds)]


async def test_what_waits_comes_at_once_and_in_order_and_no_more_than_is_asked_for(
    harness: Harness, pull: Pull
) -> None:
    await put(harness, *"abcde")
    began = time.monotonic()
    assert await taken(pull, 3, LONG) == ["a", "b", "c"]
    assert await taken(pull, 3, LONG) == ["d", "e"]
    assert time.monotonic() - began < LONG / 2


async def test_the_first_that_comes_is_not_kept_waiting_for_others(harness: Harness, pull: Pull) -> None:
    began = time.monotonic()
    waiting = asyncio.create_task(taken(pull, 100, LONG))
    await eventually(lambda: _asks(harness), "the request is there")
    await put(harness, "a")
    assert await waiting == ["a"]
    await put(harness, "b", "c")
    assert await taken(pull, 100, LONG) == ["b", "c"]
    assert time.monotonic() - began < LONG / 2


async def test_what_is_given_to_an_older_request_is_not_kept_waiting_for_the_end_of_this_one(
    harness: Harness, pull: Pull
) -> None:
    client, older = harness.broker.client, f"{pull._inbox}.older"
    for _ in range(2):
        await client.publish(
            f"$JS.API.CONSUMER.MSG.NEXT.{STREAM}.{harness.name}", b'{"batch": 1, "expires": 60000000000}', older
        )
    await eventually(lambda: _asks(harness, 2), "the older requests are there")
    with promised(LONG / 2):
        waiting = asyncio.create_task(taken(pull, 100, LONG))
        await eventually(lambda: _asks(harness, 3), "so is its own")
        await put(harness, "a")
        assert await waiting == ["a"]
        # one that came while nobody waited for it
        await put(harness, "b")
        assert await taken(pull, 100, LONG) == ["b"]


async def test_nothing_is_waited_for_as_long_as_is_said(harness: Harness, pull: Pull) -> None:
    began = time.monotonic()
    assert await pull.take(10, 0.5) == []
    assert 0.3 < time.monotonic() - began < LONG / 2
    await put(harness, "a")
    assert await taken(pull, 10, LONG) == ["a"]


async def test_a_consumer_that_is_gone_is_an_error_and_not_silence(harness: Harness, pull: Pull) -> None:
    waiting = asyncio.create_task(pull.take(10, LONG))
    await eventually(lambda: _asks(harness), "the request is there")
    await harness.broker.jetstream.delete_consumer(STREAM, harness.name)
    with pytest.raises(APIError):
        await waiting
    with pytest.raises(APIError):
        await pull.take(10, LONG)


async def _asks(harness: Harness, requests: int = 1) -> bool:
    info = await harness.broker.jetstream.consumer_info(STREAM, harness.name)
    return (info.num_waiting or 0) >= requests


async def test_it_goes_on_after_the_connection_was_lost(harness: Harness, pull: Pull, nats_server: NatsServer) -> None:
    await put(harness, "a")
    assert await taken(pull, 10, LONG) == ["a"]
    nats_server.process.kill()
    await eventually(lambda: not harness.broker.connected, "the connection is lost")
    with pytest.raises(nats.errors.Error):
        await pull.take(10, LONG)
    nats_server.process.start()
    await eventually(lambda: harness.broker.connected, "it is back")
    await put(harness, "b")
    assert "b" in await taken(pull, 10, LONG)


async def test_it_is_closed_at_once_when_nothing_comes(harness: Harness, pull: Pull) -> None:
    taking = asyncio.create_task(pull.take(10, LONG))
    await eventually(lambda: is_asked(harness), "it waits")
    with promised(0.5):
        await pull.close()
    assert await taking == []


async def test_what_is_chosen_for_it_as_it_is_closed_is_taken(harness: Harness, pull: Pull) -> None:
    await put(harness, "a")
    assert await taken(pull, 10, LONG) == ["a"]
    taking = asyncio.create_task(taken(pull, 10, LONG))
    await eventually(lambda: is_asked(harness), "it waits")
    closing = asyncio.create_task(pull.close())
    await put(harness, "b")
    await closing
    lost = await taking == [] and await is_under_way(harness) > 1
    assert not lost


async def is_asked(harness: Harness) -> bool:
    return bool((await harness.broker.jetstream.consumer_info(STREAM, harness.name)).num_waiting)


async def is_under_way(harness: Harness) -> int:
    return (await harness.broker.jetstream.consumer_info(STREAM, harness.name)).num_ack_pending or 0
