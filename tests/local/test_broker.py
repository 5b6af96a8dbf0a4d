import asyncio
import dataclasses
from collections.abc import AsyncIterator
from uuid import uuid4

import nats
import pytest
from nats.aio.client import Client
from nats.js.errors import NotFoundError

from shared.contracts.events import STREAM
from tests.local.conftest import eventually
from tests.support.harness import flushed
from tests.support.servers import NatsServer


@pytest.fixture
async def services(nats_server: NatsServer, stream_kept: None) -> AsyncIterator[Client]:
    """Whoever publishes events."""
    del stream_kept
    client = await nats.connect(nats_server.url)
    yield client
    await client.close()


def subject() -> str:
    return f"gpudev.v1.none.happened.{uuid4()}"


class Tools:
    def __init__(self, client: Client, refusals: list[str]) -> None:
        self.client = client
        self.refusals = refusals


@pytest.fixture
async def tools(nats_server: NatsServer) -> AsyncIterator[Tools]:
    refusals: list[str] = []

    async def note(error: Exception) -> None:
        refusals.append(str(error))

    client = await nats.connect(nats_server.tools_url, error_cb=note)
    yield Tools(client, refusals)
    await client.close()


async def refused(tools: Tools) -> str:
    async with asyncio.timeout(30):
        while not tools.refusals:
            await flushed(tools.client)
            await asyncio.sleep(0.01)
    return tools.refusals[0].lower()


async def test_tools_receive_events_as_they_happen(services: Client, tools: Tools) -> None:
    subscription = await tools.client.subscribe("gpudev.v1.none.>")
    await flushed(tools.client)

    await services.publish(subject(), b"news")

    assert (await subscription.next_msg(timeout=30)).data == b"news"


async def test_tools_read_past_events_from_their_copy_of_the_stream(services: Client, tools: Tools) -> None:
    one = subject()
    await services.jetstream().publish(one, b"old news")

    subscription = await tools.client.jetstream().pull_subscribe(one, stream=STREAM)
    (message,) = await subscription.fetch(1, timeout=30)
    await message.ack_sync()

    assert message.data == b"old news"


async def test_tools_follow_the_copy_with_an_ordered_consumer(services: Client, tools: Tools) -> None:
    """More than the window of its flow control, which the copy's own way must not swallow."""
    one = subject()
    async with asyncio.TaskGroup() as group:
        for _ in range(400):
            group.create_task(services.jetstream().publish(one, b"x" * 10_000))

    subscription = await tools.client.jetstream().subscribe(one, stream=STREAM, ordered_consumer=True)

    for _ in range(400):
        await subscription.next_msg(timeout=30)


@pytest.mark.parametrize(
    "subject",
    [
        "gpudev.v1.jobs.started.1",
        "gpudev.rpc.auth.verify",
        "$JS.API.STREAM.DELETE.GPUDEV",
        "$SRV.PING",
    ],
)
async def test_tools_publish_nothing(tools: Tools, subject: str) -> None:
    await tools.client.publish(subject, b"forged")

    assert "permissions violation" in await refused(tools)


@pytest.mark.parametrize("subject", ["auth.verify", ">", "$SYS.>", "gpudev.>"])
async def test_tools_listen_to_nothing_but_events(tools: Tools, subject: str) -> None:
    await tools.client.subscribe(subject)

    assert "permissions violation" in await refused(tools)


def test_a_wrong_password_is_refused(nats_server: NatsServer) -> None:
    broker = nats_server.broker

    eventually(broker.is_ready)
    assert not dataclasses.replace(broker, tools_password="wrong").is_ready()


async def test_what_was_acknowledged_survives_a_kill_but_not_a_wipe(nats_server: NatsServer) -> None:
    name = f"kept-{uuid4().hex}"
    client = await nats.connect(nats_server.url)
    await client.jetstream().add_stream(name=name, subjects=[f"{name}.>"])
    await client.jetstream().publish(f"{name}.x", b"kept")
    await client.close()

    nats_server.process.restart()
    client = await nats.connect(nats_server.url)
    assert (await client.jetstream().stream_info(name)).state.messages == 1
    await client.close()

    nats_server.wipe_store()
    nats_server.process.start()
    client = await nats.connect(nats_server.url)
    with pytest.raises(NotFoundError):
        await client.jetstream().stream_info(name)
    await client.close()
