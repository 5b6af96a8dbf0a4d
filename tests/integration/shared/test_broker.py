"""A connection to the broker that lasts for years."""

from urllib.parse import urlsplit

from nats.aio.client import Srv

from deploy.local.ports import free_ports
from shared.messaging import Broker
from tests.support.harness import eventually, running
from tests.support.servers import NatsServer


async def test_addresses_that_servers_told_of_and_that_answer_no_more_are_forgotten(nats_server: NatsServer) -> None:
    broker = Broker(nats_server.url, name="lasting")
    async with running(broker.run):
        await eventually(lambda: broker.connected, "the broker is connected")
        client = broker.client
        configured = client.servers
        for port in free_ports(3):  # as of pods that are gone
            told_of = Srv(urlsplit(f"nats://127.0.0.1:{port}"))  # type: ignore[arg-type]
            told_of.discovered = True
            client._server_pool.append(told_of)

        async def are_forgotten() -> bool:
            await client.force_reconnect()
            await eventually(lambda: broker.connected, "connected again")
            return client.servers == configured

        await eventually(are_forgotten, "only the configured one is left")
        assert len(configured) == 1
