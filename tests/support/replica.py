"""One replica of a service in a process of its own, started as in every deployment."""

import sys
from collections.abc import Mapping
from pathlib import Path

from deploy.local.applications import answers
from deploy.local.part import Part
from deploy.local.ports import HOST, free_ports
from tests.support.harness import new_secret_keys
from tests.support.servers import ServerProcess

ROOT = Path(__file__).parents[2]


class Replica(ServerProcess):
    """`python -m shared.serve` on free ports.

    Args:
        service: Its name.
        log: File that takes what it says.
        environment: Its settings.
    """

    def __init__(self, service: str, log: Path, environment: Mapping[str, str]) -> None:
        self.log = log
        port, metrics_port = free_ports(2)
        self.url = f"http://{HOST}:{port}"
        self.metrics_url = f"http://{HOST}:{metrics_port}/metrics"
        ports = {"GPUDEV_HOST": HOST, "GPUDEV_HTTP_PORT": str(port), "GPUDEV_METRICS_PORT": str(metrics_port)}
        super().__init__(
            Part(
                name=service,
                argv=(sys.executable, "-m", "shared.serve", service),
                env={"GPUDEV_DRAIN_SECONDS": "0", **environment, **ports},
                cwd=ROOT,
                log=log,
                ready=lambda: answers(port),
                port=port,
                stop_seconds=30,
            )
        )


def disks_settings(dsn: str, nats_url: str) -> dict[str, str]:
    """What disks needs to start, with an AWS that never answers."""
    return {
        "GPUDEV_DATABASE_URL": dsn,
        "GPUDEV_NATS_URL": nats_url,
        "GPUDEV_SECRET_KEYS": new_secret_keys(),
        "GPUDEV_AWS_REGION": "us-east-2",
        "GPUDEV_AVAILABILITY_ZONE": "us-east-2a",
        "GPUDEV_AWS_ENDPOINT_URL": "http://127.0.0.1:9",
        "AWS_ACCESS_KEY_ID": "none",
        "AWS_SECRET_ACCESS_KEY": "none",
    }
