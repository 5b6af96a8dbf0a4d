"""One replica of a service in a process of its own, started as in every deployment."""

import sys
from collections.abc import Mapping
from pathlib import Path

from deploy.local.applications import answers
from deploy.local.part import Part
from deploy.local.ports import HOST, free_ports
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
