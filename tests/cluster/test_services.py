"""Services: allocation of addresses and node ports."""

import json
from typing import Any

import httpx
import pytest
from kubernetes.client import ApiException, CoreV1Api

MERGE = "application/merge-patch+json"


def service(name: str, **spec: Any) -> dict[str, Any]:
    return {"metadata": {"name": name}, "spec": {"selector": {"app": name}, "ports": [{"port": 22}], **spec}}


def test_a_service_gets_a_cluster_ip_and_defaults(core: CoreV1Api, namespace: str) -> None:
    made = core.create_namespaced_service(namespace, service("a"))
    assert made.spec.cluster_ip.startswith("10.")
    assert made.spec.type == "ClusterIP"
    assert (made.spec.ports[0].protocol, made.spec.ports[0].target_port) == ("TCP", 22)
    assert made.spec.ports[0].node_port is None


def test_every_node_port_service_gets_another_port(core: CoreV1Api, namespace: str) -> None:
    made = [core.create_namespaced_service(namespace, service(f"s{i}", type="NodePort")) for i in range(5)]
    ports = {entry.spec.ports[0].node_port for entry in made}
    assert len(ports) == 5
    assert all(30000 <= port <= 32767 for port in ports)
    assert len({entry.spec.cluster_ip for entry in made}) == 5


def test_a_node_port_that_is_taken_is_invalid(core: CoreV1Api, raw: httpx.Client, namespace: str) -> None:
    taken = core.create_namespaced_service(namespace, service("a", type="NodePort")).spec.ports[0].node_port
    with pytest.raises(ApiException) as caught:
        core.create_namespaced_service(
            namespace, service("b", type="NodePort", ports=[{"port": 22, "nodePort": taken}])
        )
    status = json.loads(caught.value.body)
    assert (caught.value.status, status["reason"]) == (422, "Invalid")
    assert "provided port is already allocated" in status["message"]
    # Kubernetes 1.20 answers with a Status, which the client cannot read as the Service that later ones return
    assert raw.delete(f"/api/v1/namespaces/{namespace}/services/a").status_code == 200
    made = core.create_namespaced_service(
        namespace, service("b", type="NodePort", ports=[{"port": 22, "nodePort": taken}])
    )
    assert made.spec.ports[0].node_port == taken


def test_a_node_port_out_of_range_is_invalid(core: CoreV1Api, namespace: str) -> None:
    with pytest.raises(ApiException) as caught:
        core.create_namespaced_service(namespace, service("a", type="NodePort", ports=[{"port": 22, "nodePort": 80}]))
    assert caught.value.status == 422


def test_an_update_keeps_address_and_port(core: CoreV1Api, namespace: str) -> None:
    made = core.create_namespaced_service(namespace, service("a", type="NodePort"))
    patch = {"spec": {"selector": {"app": "other"}}}
    patched = core.patch_namespaced_service("a", namespace, patch, _content_type=MERGE)
    assert patched.spec.cluster_ip == made.spec.cluster_ip
    assert patched.spec.ports[0].node_port == made.spec.ports[0].node_port


def test_a_service_without_ports_is_invalid(core: CoreV1Api, namespace: str) -> None:
    with pytest.raises(ApiException) as caught:
        core.create_namespaced_service(namespace, service("a", ports=[]))
    status = json.loads(caught.value.body)
    assert (status["reason"], status["details"]["causes"][0]["field"]) == ("Invalid", "spec.ports")


def test_the_cluster_ip_is_fixed(core: CoreV1Api, namespace: str) -> None:
    core.create_namespaced_service(namespace, service("a"))
    with pytest.raises(ApiException) as caught:
        core.patch_namespaced_service("a", namespace, {"spec": {"clusterIP": "10.96.77.77"}}, _content_type=MERGE)
    assert caught.value.status == 422
