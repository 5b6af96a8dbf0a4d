"""TLS, token, files and resources of the simulator's process."""

import ssl
import stat
from pathlib import Path

import httpx
import pytest

from tests.cluster.conftest import raw_client
from tests.cluster.simulation import Simulation


def test_every_path_but_health_and_version_asks_for_the_token(simulation: Simulation) -> None:
    with raw_client(simulation.kubeconfig) as raw:
        paths = ["/api", "/apis", "/api/v1", "/openapi/v2", "/api/v1/pods", "/api/v1/namespaces/default/secrets", "/x"]
        for headers in ({"Authorization": ""}, {"Authorization": "Bearer wrong"}, {"Authorization": "Basic eDp5"}):
            assert {raw.get(path, headers=headers).status_code for path in paths} == {401}
        assert {raw.get(p, headers={"Authorization": ""}).status_code for p in ("/healthz", "/version")} == {200}


def test_plain_http_and_an_unknown_authority_are_refused(simulation: Simulation) -> None:
    with pytest.raises(httpx.TransportError):
        httpx.get(f"http://127.0.0.1:{simulation.port}/healthz", trust_env=False)
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"https://127.0.0.1:{simulation.port}/healthz", verify=ssl.create_default_context(), trust_env=False)


def test_only_the_owner_can_read_the_state(simulation: Simulation) -> None:
    assert stat.S_IMODE(simulation.kubeconfig.stat().st_mode) == 0o600
    assert stat.S_IMODE(simulation.state.stat().st_mode) == 0o700


def test_the_token_and_the_authority_stay_over_restarts(simulation: Simulation) -> None:
    before = simulation.kubeconfig.read_text()
    simulation.stop()
    simulation.start()
    assert simulation.kubeconfig.read_text() == before


def test_it_is_small(simulation: Simulation) -> None:
    status = Path(f"/proc/{simulation.process.pid}/status").read_text()
    resident_kib = int(status.split("VmRSS:")[1].split()[0])
    assert resident_kib < 120 * 1024
