"""The four services as parts of the stack: their processes and their environment."""

import os
import signal
import sys
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from deploy.local import aws
from deploy.local.aws import Cloud
from deploy.local.broker import Broker
from deploy.local.part import Part
from deploy.local.ports import HOST
from deploy.local.postgres import DATABASE, Postgres, service_dsn
from deploy.local.region import AVAILABILITY_ZONE, REGION
from deploy.local.state import Secrets
from shared.routes import SERVICES, ServiceName

OWN_VARIABLES = frozenset(
    {
        "GPUDEV_KUBECONFIG",
        "GPUDEV_NAMESPACE",
        "GPUDEV_NODES",
        "GPUDEV_PORT",
        "GPUDEV_READ_SECONDS",
        "GPUDEV_REPLICAS",
        "GPUDEV_STATE",
    }
)
"""What the stack itself is set up with; every other GPUDEV_ variable of the caller is for the services."""

_DRAIN_SECONDS = "3"
"""Longer than the ingress takes to notice: it looks every second, and waits a second for the answer."""


@dataclass(frozen=True, kw_only=True)
class Applications:
    """What the services are told about the world."""

    directory: Path
    """Folder that holds the package `services`."""
    postgres: Postgres
    broker: Broker
    cloud: Cloud
    jobs_defaults: Mapping[str, str]
    """Variables of the jobs service, unless the caller says otherwise."""
    kubeconfig: Path
    namespace: str
    """Of the jobs' objects in the cluster."""
    secrets: Secrets
    public_url: str
    ports: Mapping[str, list[int]]
    """Service name to the ports of its replicas."""
    metrics_ports: Mapping[str, list[int]]
    """Likewise, of their metrics."""
    read_seconds: int
    """For the head of a request, and until a silent connection is closed."""

    def parts(self, logs: Path) -> list[Part]:
        """A process for each replica of each service."""
        return [
            self._part(service, number, port, logs)
            for service in SERVICES
            for number, port in enumerate(self.ports[service], start=1)
        ]

    def database_url(self, service: ServiceName) -> str:
        """The service's connection string."""
        return service_dsn(service, self.secrets.databases[service], self.postgres.dsn(), DATABASE)

    def migration_environment(self) -> dict[str, str]:
        """What `python -m shared.database.migrate` needs."""
        return {f"GPUDEV_DATABASE_URL_{name.upper()}": self.database_url(name) for name in SERVICES}

    def environment(self, service: ServiceName, replica: str) -> dict[str, str]:
        """One replica's variables: what the caller passes on, then ours, which win."""
        return {
            "GPUDEV_DRAIN_SECONDS": _DRAIN_SECONDS,
            **(self.jobs_defaults if service == "jobs" else {}),
            **passed_on(os.environ),
            "GPUDEV_DATABASE_URL": self.database_url(service),
            "GPUDEV_NATS_URL": self.broker.url(service),
            "GPUDEV_REPLICA": replica,
            "GPUDEV_SECRET_KEYS": self.secrets.encryption_keys[service],
            "GPUDEV_PUBLIC_URL": self.public_url,
            "GPUDEV_AUTH_URLS": ",".join(f"http://{HOST}:{port}" for port in self.ports["auth"]),
            "GPUDEV_INTERNAL_TOKEN": self.secrets.internal_token(),
            **self._world(service),
        }

    def _world(self, service: ServiceName) -> dict[str, str]:
        amazon = {"GPUDEV_AWS_ENDPOINT_URL": self.cloud.endpoint_url, "GPUDEV_AWS_REGION": REGION}
        kubernetes = {"GPUDEV_KUBECONFIG": str(self.kubeconfig), "GPUDEV_NAMESPACE": self.namespace}
        if service == "auth":
            roles = {"GPUDEV_ALLOWED_ROLES": aws.role_arn(), "GPUDEV_KEY_HASH_KEY": self.secrets.key_hash_key}
            return {**amazon, **roles}
        if service == "disks":
            keys = self.cloud.keys().disks
            return {
                **amazon,
                "GPUDEV_AVAILABILITY_ZONE": AVAILABILITY_ZONE,
                "AWS_ACCESS_KEY_ID": keys.access_key_id,
                "AWS_SECRET_ACCESS_KEY": keys.secret_access_key,
            }
        return kubernetes

    def _part(self, service: ServiceName, number: int, port: int, logs: Path) -> Part:
        name = f"{service}-{number}"
        return Part(
            name=name,
            argv=(sys.executable, "-m", "shared.serve", service),
            env={
                **self.environment(service, name),
                "GPUDEV_HOST": HOST,
                "GPUDEV_HTTP_PORT": str(port),
                "GPUDEV_METRICS_PORT": str(self.metrics_ports[service][number - 1]),
                "GPUDEV_HEAD_SECONDS": str(self.read_seconds),
            },
            cwd=self.directory,
            log=logs / f"{name}.log",
            ready=lambda: answers(port),
            port=port,
            metrics_port=self.metrics_ports[service][number - 1],
            # SIGINT: the whole stack goes, so nobody has to be given the time to turn elsewhere.
            stop_signal=signal.SIGINT,
        )


def passed_on(environment: Mapping[str, str]) -> dict[str, str]:
    """The caller's settings of services, and of what they send traces with."""
    return {
        name: value
        for name, value in environment.items()
        if name.startswith(("GPUDEV_", "OTEL_")) and name not in OWN_VARIABLES and not name.startswith("GPUDEV_TEST_")
    }


def answers(port: int) -> bool:
    """Whether an HTTP server answers on the port, whatever it says."""
    try:
        with urllib.request.urlopen(f"http://{HOST}:{port}/livez", timeout=2):
            return True
    except urllib.error.HTTPError:
        return True
    except (OSError, ValueError):
        return False
