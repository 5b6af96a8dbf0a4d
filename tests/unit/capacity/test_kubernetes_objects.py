"""What Kubernetes objects mean for GPUs."""

from typing import Any

import msgspec
import pytest

from services.capacity.adapters.kubernetes_objects import (
    NodeObject,
    PodObject,
    gpu_pod,
    node_facts,
    version_number,
)
from services.capacity.domain.fleet import RequestsPerGpu
from shared.contracts.tolerations import parse_tolerations

JOB_ID = "3f2a0000-0000-4000-8000-000000000001"
GPU = "nvidia.com/gpu"


def node(**parts: Any) -> NodeObject:
    body = {
        "metadata": {
            "name": "n1",
            "uid": "u",
            "resourceVersion": "7",
            "labels": {"node.kubernetes.io/instance-type": "p5.48xlarge"},
        },
        "spec": {},
        "status": {"allocatable": {GPU: "8"}, "conditions": [{"type": "Ready", "status": "True"}]},
    }
    return msgspec.convert(body | parts, NodeObject)


def pod(spec: dict[str, Any], phase: str = "Running", **metadata: Any) -> PodObject:
    body = {
        "metadata": {"name": "p", "namespace": "default", "uid": "u", "resourceVersion": "9"} | metadata,
        "spec": {"nodeName": "n1"} | spec,
        "status": {"phase": phase},
    }
    return msgspec.convert(body, PodObject)


def container(gpus: int, **more: Any) -> dict[str, Any]:
    return {"resources": {"limits": {GPU: str(gpus), "memory": "1Gi"}}} | more


def test_a_plain_node() -> None:
    facts = node_facts(node(), GPU)
    assert (facts.gpu_type, facts.gpus, facts.ready, facts.schedulable) == ("h100", 8, True, True)
    assert facts.resource_version == 7


def test_the_type_comes_from_the_product_when_the_instance_type_is_unknown() -> None:
    labels = {"node.kubernetes.io/instance-type": "dgx", "nvidia.com/gpu.product": "NVIDIA-A100-SXM4-80GB"}
    assert node_facts(node(metadata={"name": "n", "labels": labels}), GPU).gpu_type == "a100"
    assert node_facts(node(metadata={"name": "n", "labels": None}), GPU).gpu_type is None


@pytest.mark.parametrize(
    ("spec", "schedulable"),
    [
        ({"unschedulable": True}, False),
        ({"taints": [{"key": GPU, "effect": "NoSchedule"}]}, True),
        ({"taints": [{"key": "x", "effect": "PreferNoSchedule"}]}, True),
        ({"taints": [{"key": "x", "effect": "NoExecute"}]}, False),
        ({"taints": [{"key": "team", "value": "ml", "effect": "NoSchedule"}]}, True),
        ({"taints": [{"key": "team", "value": "other", "effect": "NoSchedule"}]}, False),
        ({"taints": None}, True),
    ],
)
def test_what_makes_a_node_unschedulable(spec: dict[str, Any], schedulable: bool) -> None:
    tolerations = parse_tolerations('[{"key": "team", "value": "ml"}]')
    assert node_facts(node(spec=spec), GPU, tolerations=tolerations).schedulable is schedulable


@pytest.mark.parametrize("conditions", [None, [], [{"type": "Ready", "status": "Unknown"}]])
def test_a_node_that_does_not_say_it_is_ready_is_not(conditions: Any) -> None:
    assert not node_facts(node(status={"conditions": conditions}), GPU).ready


def test_gpus_of_a_pod_are_those_of_its_containers_or_its_largest_init_container() -> None:
    def gpus(spec: dict[str, Any]) -> int:
        found = gpu_pod(pod(spec), GPU, "gpudev")
        return found.gpus if found else 0

    assert gpus({"containers": [container(2), container(1), {}]}) == 3
    assert gpus({"containers": [container(2)], "initContainers": [container(4)]}) == 4
    assert gpus({"containers": [container(2)], "initContainers": [container(1, restartPolicy="Always")]}) == 3
    assert gpus({"containers": [{"resources": {}}]}) == 0


def test_a_pod_holds_gpus_from_its_binding_to_its_end() -> None:
    spec = {"containers": [container(2)]}
    assert gpu_pod(pod(spec, phase="Pending"), GPU, "gpudev") is not None
    assert gpu_pod(pod(spec, deletionTimestamp="2026-01-20T18:30:00Z"), GPU, "gpudev") is not None
    assert gpu_pod(pod(spec | {"nodeName": None}, phase="Pending"), GPU, "gpudev") is None
    assert gpu_pod(pod(spec, phase="Failed"), GPU, "gpudev") is None


def test_our_label_counts_in_our_namespace_only() -> None:
    def job_of(namespace: str, label: str) -> str:
        made = pod({"containers": [container(1)]}, namespace=namespace, labels={"gpudev/job-id": label})
        found = gpu_pod(made, GPU, "gpudev")
        assert found is not None
        return str(found.job_id)

    assert job_of("gpudev", JOB_ID) == JOB_ID
    assert job_of("default", JOB_ID) == "None"
    assert job_of("gpudev", "no-uuid") == "None"


def test_a_resource_version_that_is_no_number_is_older_than_any() -> None:
    assert version_number("12") == 12
    assert version_number("x") == version_number(None) == version_number("") == 0


def test_cpu_and_memory_are_counted_in_gpus_of_ours() -> None:
    needs = RequestsPerGpu(cpu=8, memory_bytes=2**30)
    allocatable = {GPU: "8", "cpu": "60", "memory": "6Gi"}
    facts = node_facts(node(status={"allocatable": allocatable}), GPU, needs)
    assert (facts.gpus_by_cpu, facts.gpus_by_memory) == (7.5, 6)
    build = {"containers": [{"resources": {"requests": {"cpu": "4", "memory": "512Mi"}}}]}
    found = gpu_pod(pod(build), GPU, "gpudev", needs)
    assert found is not None
    assert (found.gpus, found.gpus_by_cpu, found.gpus_by_memory) == (0, 0.5, 0.5)
    assert gpu_pod(pod(build), GPU, "gpudev") is None, "it holds nothing that matters"
