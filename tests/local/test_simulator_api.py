"""What the stack asks of the simulator."""

from pathlib import Path

import pytest

from deploy.local.part import PartFailedError
from deploy.local.simulator_api import SimulatorApi
from tests.support.servers import ClusterSimulator


def test_a_namespace_is_made_once(cluster_simulator: ClusterSimulator) -> None:
    api = SimulatorApi(cluster_simulator.kubeconfig)
    for _ in range(2):
        api.ensure_namespace("of-the-stack")
    names = [item["metadata"]["name"] for item in api.items("/api/v1/namespaces")]
    assert names.count("of-the-stack") == 1


def test_what_the_simulator_refuses_is_told(cluster_simulator: ClusterSimulator) -> None:
    api = SimulatorApi(cluster_simulator.kubeconfig)
    with pytest.raises(PartFailedError, match="Not A Name"):
        api.ensure_namespace("Not A Name")
    with pytest.raises(OSError, match="answers 404"):
        api.items("/api/v1/nothing")


def test_that_there_is_no_answer_is_told(cluster_simulator: ClusterSimulator, tmp_path: Path) -> None:
    server = SimulatorApi(cluster_simulator.kubeconfig)._server
    elsewhere = tmp_path / "kubeconfig"
    elsewhere.write_text(cluster_simulator.kubeconfig.read_text().replace(server, "https://127.0.0.1:1"))
    with pytest.raises(OSError, match="does not answer"):
        SimulatorApi(elsewhere).items("/api/v1/services")
    with pytest.raises(PartFailedError, match="does not make"):
        SimulatorApi(elsewhere).ensure_namespace("x")
