"""Faults on request."""

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from kubernetes.client import ApiException, CoreV1Api, V1Pod
from kubernetes.watch import Watch

from tests.cluster.conftest import raw_client
from tests.cluster.objects import configmap, pod, shell
from tests.cluster.simulation import Simulation
from tests.cluster.waiting import eventually, gone, pod_in_phase, pod_when

IDLE = "trap 'exit 0' TERM; while :; do sleep 0.1; done"


@pytest.fixture
def core(simulation: Simulation, connect: Callable[[Simulation], CoreV1Api]) -> CoreV1Api:
    return connect(simulation)


@pytest.fixture
def admin(simulation: Simulation) -> Iterator[httpx.Client]:
    with raw_client(simulation.kubeconfig) as client:
        client.base_url = f"https://127.0.0.1:{simulation.port}/simulator"
        yield client


def want(admin: httpx.Client, *faults: dict[str, Any]) -> None:
    answer = admin.put("/faults", json=list(faults))
    assert answer.status_code == 200, answer.text


def status_of(call: Callable[[], Any]) -> int:
    try:
        call()
    except ApiException as error:
        return int(error.status)
    return 200


def idle(core: CoreV1Api, **options: Any) -> V1Pod:
    made = core.create_namespaced_pod("default", shell(IDLE, **options))
    return pod_in_phase(core, made, "Running")


@pytest.mark.parametrize("code", [409, 410, 429, 500])
def test_a_code_is_answered_as_often_as_was_asked_for(core: CoreV1Api, admin: httpx.Client, code: int) -> None:
    want(admin, {"path": "/configmaps$", "methods": ["POST"], "times": 2, "code": code})

    def create() -> int:
        return status_of(lambda: core.create_namespaced_config_map("default", configmap("c")))

    assert status_of(lambda: core.list_namespaced_config_map("default")) == 200
    assert [create(), create(), create()] == [code, code, 200]
    assert admin.get("/faults").json()[0]["times"] == 0


def test_an_answer_is_late(core: CoreV1Api, admin: httpx.Client) -> None:
    want(admin, {"seconds": 0.5})
    began = time.monotonic()
    core.list_namespace()
    assert time.monotonic() - began >= 0.5


def test_an_answer_is_lost_after_the_effect(core: CoreV1Api, admin: httpx.Client) -> None:
    want(admin, {"methods": ["POST"], "lose_answer": True})
    path = "../api/v1/namespaces/default/configmaps"
    with pytest.raises(httpx.RemoteProtocolError):
        admin.post(path, json=configmap("c"))
    assert core.read_namespaced_config_map("c", "default").metadata.name == "c"


def test_a_watch_hangs_and_goes_on(core: CoreV1Api, admin: httpx.Client) -> None:
    seen: list[str] = []

    def follow() -> None:
        for event in Watch().stream(core.list_namespaced_config_map, "default", timeout_seconds=60):
            seen.append(event["object"].metadata.name)
            if event["object"].metadata.name == "last":
                return

    thread = threading.Thread(target=follow)
    thread.start()
    core.create_namespaced_config_map("default", configmap("before"))
    eventually(lambda: "before" in seen, "the first event")
    want(admin, {"watch": True, "hang": True})
    core.create_namespaced_config_map("default", configmap("meanwhile"))
    core.create_namespaced_config_map("default", configmap("last"))
    thread.join(1)
    assert "meanwhile" not in seen
    assert admin.delete("/faults").status_code == 200
    thread.join(60)
    assert seen[-2:] == ["meanwhile", "last"]


def test_a_hanging_request_goes_on_when_the_fault_is_gone(core: CoreV1Api, admin: httpx.Client) -> None:
    want(admin, {"path": "/configmaps/c$", "hang": True, "times": 1})
    with pytest.raises(httpx.ReadTimeout):
        admin.get("../api/v1/namespaces/default/configmaps/c", timeout=httpx.Timeout(60, read=2))
    eventually(lambda: admin.get("/faults").json()[0]["times"] == 0, "the request has met the fault")
    assert status_of(lambda: core.read_namespaced_config_map("c", "default")) == 404


def test_memory_runs_out(core: CoreV1Api, admin: httpx.Client) -> None:
    made = idle(core)
    assert admin.post(f"/pods/default/{made.metadata.name}/oom").status_code == 200
    ended = pod_in_phase(core, made, "Failed").status.container_statuses[0].state.terminated
    assert (ended.exit_code, ended.reason) == (137, "OOMKilled")
    assert admin.post(f"/pods/default/{made.metadata.name}/oom").status_code == 400


def test_a_pod_is_evicted(core: CoreV1Api, admin: httpx.Client) -> None:
    made = idle(core, restartPolicy="Always")
    assert admin.post(f"/pods/default/{made.metadata.name}/evict").status_code == 200
    found = pod_in_phase(core, made, "Failed")
    assert (found.status.reason, found.status.message) == ("Evicted", "The node was low on resource: memory. ")
    assert found.status.container_statuses[0].state.terminated is not None


def test_a_node_dies_and_comes_again(core: CoreV1Api, admin: httpx.Client) -> None:
    made = idle(core, restartPolicy="Always")
    node = made.spec.node_name
    assert admin.post(f"/nodes/{node}/kill").status_code == 200

    def ready_of_node() -> str:
        conditions = core.read_node(node).status.conditions
        return str({c.type: c.status for c in conditions}["Ready"])

    assert ready_of_node() == "Unknown"
    eventually(lambda: "unreachable" in str(core.read_node(node).spec.taints), "the taint")
    lost = core.read_namespaced_pod(made.metadata.name, "default")
    assert lost.status.phase == "Running"
    assert {c.type: c.status for c in lost.status.conditions}["Ready"] == "False"
    doomed = pod("doomed", nodeName=node)
    core.create_namespaced_pod("default", doomed)
    core.delete_namespaced_pod(made.metadata.name, "default")
    assert core.read_namespaced_pod(made.metadata.name, "default").metadata.deletion_timestamp
    assert admin.post(f"/nodes/{node}/start").status_code == 200
    assert ready_of_node() == "True"
    gone(lambda: core.read_namespaced_pod(made.metadata.name, "default"), "the pod")
    pod_when(core, core.read_namespaced_pod("doomed", "default"), lambda p: p.status.phase == "Running", "a late start")


def test_pods_of_a_removed_dead_node_are_gone(core: CoreV1Api, admin: httpx.Client) -> None:
    made = idle(core)
    admin.post(f"/nodes/{made.spec.node_name}/kill")
    core.delete_node(made.spec.node_name)
    gone(lambda: core.read_namespaced_pod(made.metadata.name, "default"), "the pod")


def test_what_is_no_fault_and_who_has_no_token_are_refused(core: CoreV1Api, admin: httpx.Client) -> None:
    assert core.list_namespace().items
    assert admin.put("/faults", json=[{"colour": "red"}]).status_code == 400
    assert admin.post("/nodes/none/kill").status_code == 404
    assert admin.post("/pods/default/none/oom").status_code == 404
    assert admin.get("/faults", headers={"Authorization": ""}).status_code == 401
