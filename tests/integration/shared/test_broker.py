"""A connection to the broker that lasts for years."""

import asyncio
from urllib.parse import urlsplit

from nats.aio.client import Srv

from deploy.local.ports import free_ports
from shared.messaging import Broker
from tests.support.harness import eventually, running
from tests.support.servers import NatsServer

_INFO = b'INFO {"server_id":"x","version":"2.11.0","proto":1,"max_payload":1048576,"headers":true%s}\r\n'


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


async def test_a_server_that_cannot_be_understood_is_tried_again_until_it_can() -> None:
    connections = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        # the second time it is none that speaks the protocol, such as what else has its port while it starts anew
        writer.write(_INFO % (b' "' * 100_000 if connections == 2 else b""))
        try:
            while line := await reader.readline():
                if line.startswith(b"PING"):
                    writer.write(b"PONG\r\n")
        except OSError:
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    broker = Broker(f"nats://127.0.0.1:{server.sockets[0].getsockname()[1]}", name="patient")
    async with server, running(broker.run):
        await eventually(lambda: broker.connected, "the broker is connected")
        await broker.client.force_reconnect()
        await eventually(lambda: connections > 2 and broker.connected, "connected with what can be understood")
