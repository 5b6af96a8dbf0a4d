"""Fixtures: a cluster to test against, which is the simulator or, with GPUDEV_KUBECONFIG, a real one."""

import base64
import os
import ssl
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from kubernetes import config
from kubernetes.client import ApiClient, ApiException, Configuration, CoreV1Api

from tests.cluster.simulation import Simulation
from tests.cluster.waiting import eventually


def pytest_report_header() -> str:
    return f"cluster under test: {given_kubeconfig() or 'the simulator'}"


def given_kubeconfig() -> Path | None:
    """The real cluster to test against. Empty is a mistake: it must not turn a test of a cluster into another."""
    given = os.environ.get("GPUDEV_KUBECONFIG")
    if given is None:
        return None
    if not Path(given).is_file():
        raise pytest.UsageError(f"GPUDEV_KUBECONFIG={given!r} names no file; unset it to test the simulator")
    return Path(given)


@pytest.fixture(scope="session")
def kubeconfig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    given = given_kubeconfig()
    if given is not None:
        yield given
        return
    simulation = Simulation(tmp_path_factory.mktemp("cluster") / "state", "--back-off", "1")
    simulation.start()
    yield simulation.kubeconfig
    simulation.stop()


def client_of(kubeconfig: Path) -> ApiClient:
    configuration = Configuration()
    config.load_kube_config(str(kubeconfig), client_configuration=configuration)
    configuration.proxy = None
    return ApiClient(configuration)


@pytest.fixture(scope="session")
def api_client(kubeconfig: Path) -> Iterator[ApiClient]:
    client = client_of(kubeconfig)
    yield client
    client.rest_client.pool_manager.clear()


@pytest.fixture
def core(api_client: ApiClient) -> CoreV1Api:
    return CoreV1Api(api_client)


@pytest.fixture
def raw(kubeconfig: Path) -> Iterator[httpx.Client]:
    """Plain HTTP, for what no client would send."""
    with raw_client(kubeconfig) as client:
        yield client


def raw_client(kubeconfig: Path) -> httpx.Client:
    document: dict[str, Any] = yaml.safe_load(kubeconfig.read_text())
    cluster, user = document["clusters"][0]["cluster"], document["users"][0]["user"]
    authority = base64.b64decode(cluster["certificate-authority-data"]).decode()
    return httpx.Client(
        base_url=cluster["server"],
        verify=ssl.create_default_context(cadata=authority),
        headers={"Authorization": f"Bearer {user['token']}"},
        trust_env=False,
        timeout=30,
    )


@pytest.fixture
def namespace(core: CoreV1Api) -> Iterator[str]:
    """A namespace of the test's own; its pods are ended with it."""
    name = f"test-{uuid.uuid4().hex[:10]}"
    core.create_namespace({"metadata": {"name": name}})
    # a real cluster refuses pods until the service account controller has been there
    eventually(lambda: _exists(lambda: core.read_namespaced_service_account("default", name)), "service account")
    yield name
    # at once: a test that is over waits for no grace period, and the next one wants the GPUs
    core.delete_collection_namespaced_pod(name, grace_period_seconds=0)
    core.delete_namespace(name)
    eventually(lambda: not _pods_left(core, name), "end of the test's pods", 90)


def _exists(read: Any) -> bool:
    try:
        read()
    except ApiException as error:
        if error.status != 404:
            raise
        return False
    return True


def _pods_left(core: CoreV1Api, namespace: str) -> list[Any]:
    return core.list_namespaced_pod(namespace).items
