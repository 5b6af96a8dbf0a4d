from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from kubernetes.client import ApiClient, CoreV1Api

from tests.cluster.conftest import client_of
from tests.cluster.simulation import Simulation


@pytest.fixture
def simulation(tmp_path: Path) -> Iterator[Simulation]:
    """A simulator of the test's own, started."""
    made = Simulation(tmp_path / "state", "--back-off", "1")
    made.start()
    yield made
    if made.process is None:
        made.start()  # so that a clean stop ends the containers that a kill has left running
    made.stop()


@pytest.fixture
def connect() -> Iterator[Callable[[Simulation], CoreV1Api]]:
    """Makes clients of a simulator."""
    clients: list[ApiClient] = []

    def connect(simulation: Simulation) -> CoreV1Api:
        clients.append(client_of(simulation.kubeconfig))
        return CoreV1Api(clients[-1])

    yield connect
    for client in clients:
        client.rest_client.pool_manager.clear()
