"""Placement: GPUs, selectors, taints, cordon; and nodes as objects."""

import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from kubernetes.client import CoreV1Api, V1Pod

from tests.cluster.objects import node, pod
from tests.cluster.waiting import eventually, gone, pod_in_phase, pod_when

STRATEGIC = "application/strategic-merge-patch+json"
TOLERATE_ALL = [{"operator": "Exists"}]
RESERVED = {"key": "gpudev-test/reserved", "value": "yes", "effect": "NoSchedule"}


@pytest.fixture
def own_node(core: CoreV1Api, request: pytest.FixtureRequest) -> Iterator[str]:
    """A node without kubelet that says it is Ready; pods bound to it stay pending.

    Its parameter is the spec that it begins with: the scheduler may hear of a later change after a pod that it is for.
    """
    name = f"test-node-{uuid.uuid4().hex[:8]}"
    core.create_node({**node(name), "spec": getattr(request, "param", {})})
    yield name
    core.delete_node(name)


def await_ready(core: CoreV1Api, name: str) -> None:
    """Until the taint that every new node has is gone."""

    def untainted() -> bool:
        taints = core.read_node(name).spec.taints or []
        return not any(taint.key == "node.kubernetes.io/not-ready" for taint in taints)

    eventually(untainted, "not-ready taint removed")


def on(name: str) -> dict[str, Any]:
    return {"nodeSelector": {"gpudev-test/node": name}, "tolerations": TOLERATE_ALL}


def is_bound(found: V1Pod) -> bool:
    return bool(found.spec.node_name)


def unschedulable(found: V1Pod) -> str:
    """The message of PodScheduled=False, empty when it is not so."""
    for condition in found.status.conditions or []:
        if (condition.type, condition.status, condition.reason) == ("PodScheduled", "False", "Unschedulable"):
            return str(condition.message)
    return ""


def test_a_gpu_pod_runs_on_a_node_with_gpus(core: CoreV1Api, namespace: str) -> None:
    made = core.create_namespaced_pod(namespace, pod("a", gpus=1))
    found = pod_in_phase(core, made, "Running")
    allocatable = core.read_node(found.spec.node_name).status.allocatable
    assert int(allocatable["nvidia.com/gpu"]) >= 1


@pytest.mark.timeout(200)
def test_more_gpus_than_any_node_has_is_unschedulable(core: CoreV1Api, namespace: str) -> None:
    made = core.create_namespaced_pod(namespace, pod("a", gpus=64, tolerations=TOLERATE_ALL))

    def counted(found: V1Pod) -> bool:
        # of nodes of earlier tests the scheduler may not have heard yet that they are gone
        return unschedulable(found).startswith(f"0/{len(core.list_node().items)} nodes are available: ")

    found = pod_when(core, made, counted, "unschedulable on each of the nodes", 100)
    assert found.status.phase == "Pending"
    assert "Insufficient nvidia.com/gpu" in unschedulable(found)

    def warned() -> bool:
        events = core.list_namespaced_event(namespace, field_selector="involvedObject.name=a").items
        return any(e.reason == "FailedScheduling" and e.type == "Warning" for e in events)

    eventually(warned, "FailedScheduling event")


def test_a_waiting_pod_is_placed_when_gpus_come_free(core: CoreV1Api, namespace: str, own_node: str) -> None:
    first = core.create_namespaced_pod(namespace, pod("first", gpus=6, **on(own_node)))
    pod_when(core, first, is_bound, "bound")
    second = core.create_namespaced_pod(namespace, pod("second", gpus=3, **on(own_node)))
    waiting = pod_when(core, second, unschedulable, "unschedulable")
    assert "1 Insufficient nvidia.com/gpu" in unschedulable(waiting)
    core.delete_namespaced_pod("first", namespace, grace_period_seconds=0)
    placed = pod_when(core, second, is_bound, "bound", 90)
    assert placed.spec.node_name == own_node


@pytest.mark.timeout(200)
@pytest.mark.parametrize("own_node", [{"unschedulable": True}], indirect=True, ids=["cordoned"])
def test_a_cordoned_node_gets_no_pods(core: CoreV1Api, namespace: str, own_node: str) -> None:
    spec = {"nodeSelector": {"gpudev-test/node": own_node}}
    made = core.create_namespaced_pod(namespace, pod("a", **spec))
    assert unschedulable(pod_when(core, made, unschedulable, "unschedulable"))
    core.patch_node(own_node, {"spec": {"unschedulable": None}}, _content_type=STRATEGIC)
    pod_when(core, made, is_bound, "bound", 90)


@pytest.mark.timeout(200)
@pytest.mark.parametrize("own_node", [{"taints": [RESERVED]}], indirect=True, ids=["reserved"])
def test_a_taint_keeps_out_what_does_not_tolerate_it(core: CoreV1Api, namespace: str, own_node: str) -> None:
    await_ready(core, own_node)
    spec = {"nodeSelector": {"gpudev-test/node": own_node}}
    refused = core.create_namespaced_pod(namespace, pod("a", **spec))
    assert "taint" in unschedulable(pod_when(core, refused, unschedulable, "unschedulable"))
    toleration = {**RESERVED, "operator": "Equal"}
    tolerant = core.create_namespaced_pod(namespace, pod("b", tolerations=[toleration], **spec))
    pod_when(core, tolerant, is_bound, "bound")


@pytest.mark.parametrize(
    "term",
    [
        {"matchExpressions": [{"key": "gpudev-test/node", "operator": "In", "values": ["$NODE"]}]},
        {"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["$NODE"]}]},
    ],
    ids=["expressions", "fields"],
)
def test_required_node_affinity_is_honoured(
    core: CoreV1Api, namespace: str, own_node: str, term: dict[str, Any]
) -> None:
    named = {kind: [{**entry, "values": [own_node]} for entry in entries] for kind, entries in term.items()}
    required = {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [named]}}
    spec = {"affinity": {"nodeAffinity": required}, "tolerations": TOLERATE_ALL}
    made = core.create_namespaced_pod(namespace, pod("a", **spec))
    assert pod_when(core, made, is_bound, "bound").spec.node_name == own_node


def test_a_pod_that_names_its_node_is_refused_there_when_gpus_are_short(core: CoreV1Api, namespace: str) -> None:
    nodes = core.list_node(field_selector="spec.unschedulable!=true").items
    name = next(n.metadata.name for n in nodes if int(n.status.allocatable.get("nvidia.com/gpu", "0")) == 8)
    first = core.create_namespaced_pod(namespace, pod("first", gpus=8, nodeName=name))
    pod_in_phase(core, first, "Running")
    second = core.create_namespaced_pod(namespace, pod("second", gpus=1, nodeName=name))
    found = pod_in_phase(core, second, "Failed")
    assert found.status.reason in {"OutOfnvidia.com/gpu", "UnexpectedAdmissionError"}
    assert core.read_namespaced_pod("first", namespace).status.phase == "Running"


def test_a_pod_asks_for_any_extended_resource(core: CoreV1Api, namespace: str, own_node: str) -> None:
    amounts = {"status": {"capacity": {"gpudev.test/thing": "2"}, "allocatable": {"gpudev.test/thing": "2"}}}
    core.patch_node_status(own_node, amounts, _content_type=STRATEGIC)
    wants = {"resources": {"limits": {"gpudev.test/thing": "2"}}}
    first = core.create_namespaced_pod(namespace, pod("a", container=wants, tolerations=TOLERATE_ALL))
    assert pod_when(core, first, is_bound, "bound").spec.node_name == own_node
    second = core.create_namespaced_pod(namespace, pod("b", container=wants, tolerations=TOLERATE_ALL))
    assert "Insufficient gpudev.test/thing" in unschedulable(pod_when(core, second, unschedulable, "unschedulable"))


def test_an_unready_node_is_tainted(core: CoreV1Api, own_node: str) -> None:
    await_ready(core, own_node)
    unready = {"status": {"conditions": [{"type": "Ready", "status": "False", "reason": "T", "message": ""}]}}
    core.patch_node_status(own_node, unready, _content_type=STRATEGIC)

    def tainted() -> bool:
        taints = core.read_node(own_node).spec.taints or []
        return any(taint.key == "node.kubernetes.io/not-ready" for taint in taints)

    eventually(tainted, "taint", 60)


def test_the_status_of_a_node_is_its_own_subresource(core: CoreV1Api, own_node: str) -> None:
    labelled = {"metadata": {"labels": {"gpudev-test/l": "v"}}, "status": {"nodeInfo": {"kernelVersion": "x"}}}
    before = core.read_node(own_node)
    patched = core.patch_node(own_node, labelled, _content_type=STRATEGIC)
    assert patched.metadata.labels["gpudev-test/l"] == "v"
    assert patched.status.node_info == before.status.node_info


@pytest.mark.timeout(200)
def test_the_pods_of_a_deleted_node_are_collected(core: CoreV1Api, namespace: str) -> None:
    name = f"test-node-{uuid.uuid4().hex[:8]}"
    core.create_node(node(name))
    made = core.create_namespaced_pod(namespace, pod("a", **on(name)))
    pod_when(core, made, is_bound, "bound")
    core.delete_node(name)
    gone(lambda: core.read_namespaced_pod("a", namespace), "pod", 150)
