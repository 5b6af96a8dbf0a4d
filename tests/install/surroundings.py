"""What an operator has before they install GPU Dev: PostgreSQL, three NATS servers, AWS, an ingress, DNS.

The servers run on this machine and are reached from the cluster's pods at the machine's end of the node's network; the
ingress runs in the cluster. All of it is there before the installation, which only uses it.
"""

import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from deploy.local.aws import Cloud
from deploy.local.broker import ACCOUNTS
from deploy.local.github_keys import KeyPages, make_key_pair
from deploy.local.part import Part, program
from deploy.local.ports import HOST, accepts, free_ports
from deploy.local.postgres import DURABLE, Postgres, binaries
from deploy.local.state import new_password, write_private
from tests.cluster import waiting
from tests.support.servers import ServerProcess

MACHINE = "10.201.0.1"
"""This machine, as pods see it."""
NODE = "10.201.0.2"
INGRESS_PORT = 30080
INGRESS_TLS_PORT = 30443
INGRESS_CLASS = "traefik"
NATS_SERVERS = 3
TRAEFIK = Path(__file__).with_name("traefik.yaml")
ROOT = Path(__file__).parents[2]
eventually = partial(waiting.eventually, pause=0.3)
"""Every look is a program's start, on a machine that the cluster shares."""


class Surroundings:
    """All of them; `folder` takes their files and is open to other users for passing through."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._running: list[ServerProcess] = []
        self.nats: list[ServerProcess] = []
        ports = free_ports(3 + NATS_SERVERS * 2)
        self.postgres = Postgres(directory=folder / "postgres", port=ports[0], password=new_password())
        where = {"directory": folder / "moto", "disks": folder / "disks"}
        self.cloud = Cloud(**where, port=ports[1], snapshot_seconds=0.05)
        self.github = KeyPages(directory=folder / "github", port=ports[2])
        self._nats_ports = ports[3 : 3 + NATS_SERVERS]
        self._nats_routes = ports[3 + NATS_SERVERS :]
        self.database = ServerProcess(self.postgres.part(folder / "postgres.log", self.settings()))

    def start(self) -> None:
        """Bring up all but NATS, whose passwords are made by the installation, and DNS."""
        folder = self.folder
        self._start_postgres()
        self._start(self.cloud.part(folder / "moto.log"))
        make_key_pair(self.github.directory, "demo")
        self._start(self.github.part(folder / "github.log"))
        for port in (self.postgres.port, self.cloud.port, self.github.port, *self._nats_ports):
            self._forward(port)

    @property
    def nats_url(self) -> str:
        """For pods; without a user."""
        return ",".join(f"nats://{MACHINE}:{port}" for port in self._nats_ports)

    @property
    def nats_here(self) -> list[str]:
        """The same servers, for programs of this machine."""
        return [f"nats://{HOST}:{port}" for port in self._nats_ports]

    def at(self, port: int) -> str:
        """Address of one of our ports, for pods."""
        return f"{MACHINE}:{port}"

    @property
    def archive(self) -> Path:
        """Where PostgreSQL keeps its write-ahead log for a restore."""
        return self.folder / "archive"

    def settings(self) -> dict[str, str]:
        """PostgreSQL's: as it ships, and with its log archived at once."""
        copy = f"test ! -f {self.archive}/%f && cp %p {self.archive}/%f"
        return {**DURABLE, "archive_mode": "on", "archive_command": copy, "wal_level": "replica"}

    def start_nats(self, passwords: str) -> None:
        """Three servers with these passwords; they serve when they have a leader."""
        routes = [f"nats://{HOST}:{port}" for port in self._nats_routes]
        for number, (port, route) in enumerate(zip(self._nats_ports, self._nats_routes, strict=True), start=1):
            directory = self.folder / f"nats-{number}"
            values: dict[str, Any] = {
                "server_name": f"nats-{number}",
                "listen": f"{HOST}:{port}",
                "jetstream": {"store_dir": str(directory / "store"), "sync_interval": "always"},
                "cluster": {"name": "gpudev", "listen": f"{HOST}:{route}", "routes": routes, "no_advertise": True},
            }
            lines = [f"{name}: {json.dumps(value)}" for name, value in values.items()]
            write_private(directory / "nats.conf", "\n".join([*lines, "include ./accounts.conf", ""]))
            write_private(directory / "passwords.conf", passwords)
            shutil.copyfile(ACCOUNTS, directory / "accounts.conf")
            part = Part(
                name=f"nats-{number}",
                argv=(program("nats-server"), "-c", str(directory / "nats.conf")),
                log=self.folder / f"nats-{number}.log",
                ready=lambda port=port: accepts(port),  # type: ignore[misc]
                port=port,
            )
            self.nats.append(self._start(part))

    def start_dns(self, address: Callable[[str, str], str | None]) -> None:
        """DNS for the names of the control plane's Services, as pods ask for them."""
        names = self.folder / "dns"
        names.mkdir()
        argv = [
            program("dnsmasq"),
            "--keep-in-foreground",
            "--no-resolv",
            "--no-hosts",
            "--bind-interfaces",
            "--user=root",
        ]
        argv += [f"--listen-address={MACHINE}", f"--hostsdir={names}", "--conf-file=/dev/null", "--pid-file="]
        argv += ["--local=/cluster.local/"]
        self._start(Part(name="dns", argv=tuple(argv), log=self.folder / "dns.log", ready=_answers_dns))
        self._names, self._address = names, address

    def tell_names(self, *services: str) -> None:
        """Let DNS know the Services of the control plane."""
        for name in services:
            found = self._address("gpudev-system", name)
            new = self._names / f".{name}"
            new.write_text(f"{found} {name}.gpudev-system.svc.cluster.local\n")
            new.replace(self._names / name)

    def environment(self) -> dict[str, str]:
        """The shell that the operator works in."""
        path = f"{self.folder / 'bin'}:{binaries()}:{os.environ['PATH']}"
        return {**os.environ, "PATH": path, "PGPASSWORD": self.postgres.password}

    def close(self) -> None:
        """End all of it."""
        for process in reversed(self._running):
            process.kill()

    def _start_postgres(self) -> None:
        self.postgres.initialise()
        self.archive.mkdir()
        os.chown(self.archive, *_owner(self.postgres.directory))
        self._running.append(self.database)
        self.database.start()

    def _forward(self, port: int) -> None:
        listen = f"TCP-LISTEN:{port},bind={MACHINE},fork,reuseaddr"
        argv = (program("socat"), listen, f"TCP:{HOST}:{port}")
        name = f"forward-{port}"
        ready = lambda: _accepts(MACHINE, port)  # noqa: E731
        self._start(Part(name=name, argv=argv, log=self.folder / f"{name}.log", ready=ready))

    def _start(self, part: Part) -> ServerProcess:
        process = ServerProcess(part)
        self._running.append(process)
        process.start()
        return process


def _owner(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_uid, status.st_gid


def _accepts(host: str, port: int) -> bool:
    try:
        with socket.create_connection((host, port), timeout=1):
            return True
    except OSError:
        return False


def _answers_dns() -> bool:
    return _accepts(MACHINE, 53)


def run(command: list[str], *, stdin: str | None = None, check: bool = True) -> str:
    """A program's output; its errors in the failure."""
    done = subprocess.run(command, input=stdin, capture_output=True, text=True, check=False, timeout=300)
    if check and done.returncode:
        raise AssertionError(f"{command}: {done.returncode}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}")
    return done.stdout


def python(*arguments: str) -> list[str]:
    """This interpreter."""
    return [sys.executable, *arguments]
