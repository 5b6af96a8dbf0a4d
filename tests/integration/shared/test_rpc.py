"""A replica takes requests before its first connection to the broker is up."""

import asyncio

import pytest

from shared.errors import BrokerUnavailable, Unavailable
from shared.messaging import Broker
from shared.messaging.rpc import Empty, RpcEndpoint, RpcServer, call_rpc
from tests.support.harness import eventually, running
from tests.support.servers import NatsServer

SUBJECT = "gpudev.rpc.capacity.test"


async def is_answered(broker: Broker) -> bool:
    try:
        await call_rpc(broker, SUBJECT, Empty(), Empty)
    except Unavailable:
        return False
    return True


async def test_a_call_before_the_first_connection_waits_for_it(nats_server: NatsServer) -> None:
    async def answer(_: Empty) -> Empty:
        return Empty()

    answering, late = Broker(nats_server.url, name="answering"), Broker(nats_server.url, name="late")
    RpcServer(broker=answering, service="test", endpoints=[RpcEndpoint(SUBJECT, Empty, answer)])
    async with running(answering.run):
        await eventually(lambda: is_answered(answering), "the other service answers")
        asked = asyncio.create_task(call_rpc(late, SUBJECT, Empty(), Empty, timeout_seconds=60))
        await asyncio.sleep(0)  # it has asked
        async with running(late.run):
            assert await asked == Empty()


async def test_a_call_while_the_broker_is_away_fails_in_time(nats_server: NatsServer) -> None:
    del nats_server
    never = Broker("nats://127.0.0.1:9", name="never")
    with pytest.raises(BrokerUnavailable):
        await call_rpc(never, SUBJECT, Empty(), Empty, timeout_seconds=0.1)
