"""Whose log-ins are counted together, behind real ingresses."""

import base64
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import cycle
from pathlib import Path

import httpx
import pytest

from deploy.local import part as parts
from deploy.local.ingress import Ingress
from deploy.local.ports import HOST, free_ports
from shared.database.migrate import upgrade
from shared.routes import SERVICES
from tests.support.harness import new_secret_keys
from tests.support.replica import Replica
from tests.support.servers import NatsServer, PostgresServer

LIMIT = 3
OTHER_HOSTS = ("127.0.0.2", "127.0.0.3", "127.0.0.4")


@contextmanager
def ingress(directory: Path, backend: int, *, trusted_proxies: int) -> Iterator[int]:
    """A Traefik before a port; its own."""
    port, error_port = free_ports(2)
    made = Ingress(
        directory=directory,
        port=port,
        backends={service: [backend] for service in SERVICES},
        error_port=error_port,
        read_seconds=20,
        trusted_proxies=trusted_proxies,
    )
    directory.mkdir()
    part = made.part(directory / "traefik.log")
    process = parts.spawn(part)
    try:
        parts.await_ready(process, part)
        yield port
    finally:
        parts.stop(process, part)


@pytest.fixture
def behind(postgres_server: PostgresServer, nats_server: NatsServer, tmp_path: Path) -> Iterator[Callable[[int], str]]:
    """Call with the number of proxies that auth believes: the URL of the outer one of two."""
    dsn = postgres_server.make_service_database("auth")
    upgrade("auth", dsn)
    with ExitStack() as running:

        def start(trusted: int) -> str:
            replica = Replica(
                "auth",
                tmp_path / "auth.log",
                {
                    "GPUDEV_DATABASE_URL": dsn,
                    "GPUDEV_NATS_URL": nats_server.service_url("auth"),
                    "GPUDEV_SECRET_KEYS": new_secret_keys(),
                    "GPUDEV_KEY_HASH_KEY": base64.b64encode(os.urandom(32)).decode(),
                    "GPUDEV_ALLOWED_ROLES": "arn:aws:iam::123456789012:role/x",
                    "GPUDEV_AWS_ENDPOINT_URL": "http://127.0.0.1:9",
                    "GPUDEV_LOGIN_LIMIT_PER_MINUTE_ADDRESS": str(LIMIT),
                    "GPUDEV_TRUSTED_PROXIES": str(trusted),
                },
            )
            running.callback(replica.kill)
            replica.start()
            port = int(replica.url.rpartition(":")[2])
            # both add to what they are told, as load balancers do, so that a client's own words come through
            inner = running.enter_context(ingress(tmp_path / "inner", port, trusted_proxies=2))
            outer = running.enter_context(ingress(tmp_path / "outer", inner, trusted_proxies=2))
            return f"http://{HOST}:{outer}"

        yield start
    postgres_server.drop_database(dsn)


def log_in(url: str, host: str, *, says: str | None = None) -> int:
    """Status of a log-in that lacks everything, by a client of that address."""
    with httpx.Client(transport=httpx.HTTPTransport(local_address=host), trust_env=False, timeout=60) as client:
        headers = {} if says is None else {"X-Forwarded-For": says}
        return client.post(f"{url}/v1/auth/aws-login", json={}, headers=headers, timeout=30).status_code


def admitted(url: str, clients: Sequence[tuple[str, str | None]]) -> int:
    """How many log-ins are admitted, by each client in turn, before one is refused; see `log_in` for a client."""
    for number, (host, says) in enumerate(cycle(clients)):
        status = log_in(url, host, says=says)
        if status == 429:
            return number
        assert (status, number < 3 * LIMIT * len(clients)) == (400, True)
    raise AssertionError


# A new minute may begin once meanwhile: who is counted by themselves is admitted LIMIT to twice LIMIT times.


def test_behind_two_proxies_each_client_has_a_limit_of_its_own(behind: Callable[[int], str]) -> None:
    url = behind(2)
    assert LIMIT <= admitted(url, [(HOST, f"203.0.113.{number}") for number in range(3 * LIMIT)]) <= 2 * LIMIT
    assert 3 * LIMIT <= admitted(url, [(host, None) for host in OTHER_HOSTS]) <= 6 * LIMIT


def test_a_proxy_that_is_not_counted_makes_all_clients_one(behind: Callable[[int], str]) -> None:
    assert LIMIT <= admitted(behind(1), [(host, None) for host in (HOST, *OTHER_HOSTS)]) <= 2 * LIMIT
