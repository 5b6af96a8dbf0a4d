"""Kubernetes objects, as much of them as matters here, and what they mean for GPUs."""

from uuid import UUID

import msgspec

from services.capacity.domain.fleet import GpuPod, NodeFacts
from shared.contracts.catalogue import gpu_type_of_node

INSTANCE_TYPE = "node.kubernetes.io/instance-type"
GPU_PRODUCT = "nvidia.com/gpu.product"
ZONE = "topology.kubernetes.io/zone"
JOB_ID = "gpudev/job-id"
_REPELLING = frozenset({"NoSchedule", "NoExecute"})
_TERMINAL_PHASES = frozenset({"Succeeded", "Failed"})


class Metadata(msgspec.Struct, frozen=True, rename="camel"):
    name: str = ""
    namespace: str = ""
    uid: str = ""
    resource_version: str = "0"
    labels: dict[str, str] | None = None

    @property
    def version(self) -> int:
        """The resourceVersion as a number; that they are comparable ones is Kubernetes's promise since 1.35."""
        return version_number(self.resource_version)


class Taint(msgspec.Struct, frozen=True):
    key: str = ""
    effect: str = ""


class NodeSpec(msgspec.Struct, frozen=True):
    unschedulable: bool | None = None
    taints: list[Taint] | None = None


class Condition(msgspec.Struct, frozen=True):
    type: str
    status: str


class NodeStatus(msgspec.Struct, frozen=True):
    allocatable: dict[str, str] | None = None
    conditions: list[Condition] | None = None


class NodeObject(msgspec.Struct, frozen=True):
    metadata: Metadata
    spec: NodeSpec = NodeSpec()
    status: NodeStatus = NodeStatus()


class Resources(msgspec.Struct, frozen=True):
    requests: dict[str, str] | None = None
    limits: dict[str, str] | None = None


class Container(msgspec.Struct, frozen=True, rename="camel"):
    resources: Resources = Resources()
    restart_policy: str | None = None


class PodSpec(msgspec.Struct, frozen=True, rename="camel"):
    node_name: str | None = None
    containers: list[Container] | None = None
    init_containers: list[Container] | None = None


class PodStatus(msgspec.Struct, frozen=True):
    phase: str = "Pending"


class PodObject(msgspec.Struct, frozen=True):
    metadata: Metadata
    spec: PodSpec = PodSpec()
    status: PodStatus = PodStatus()


def version_number(resource_version: str | None) -> int:
    """A resourceVersion as a number; 0 for one that is none, which makes it older than any."""
    return int(resource_version) if resource_version and resource_version.isdecimal() else 0


def node_facts(node: NodeObject, gpu_resource: str) -> NodeFacts:
    """What a Node object says."""
    labels = node.metadata.labels or {}
    instance_type = labels.get(INSTANCE_TYPE)
    return NodeFacts(
        name=node.metadata.name,
        uid=node.metadata.uid,
        resource_version=node.metadata.version,
        instance_type=instance_type,
        gpu_type=gpu_type_of_node(instance_type, labels.get(GPU_PRODUCT)),
        zone=labels.get(ZONE),
        gpus=_count(node.status.allocatable, gpu_resource),
        ready=any(c.type == "Ready" and c.status == "True" for c in node.status.conditions or ()),
        schedulable=not node.spec.unschedulable and not any(_repels(t, gpu_resource) for t in node.spec.taints or ()),
    )


def gpu_pod(pod: PodObject, gpu_resource: str, namespace: str) -> GpuPod | None:
    """The pod if it holds GPUs of a node: bound, and not over. A terminating one still holds the device.

    Args:
        pod: Any pod of the cluster.
        gpu_resource: Name of the extended resource.
        namespace: Where pods of jobs are; elsewhere our label means nothing.
    """
    gpus = _gpus_of(pod.spec, gpu_resource)
    if not gpus or not pod.spec.node_name or pod.status.phase in _TERMINAL_PHASES:
        return None
    return GpuPod(
        uid=pod.metadata.uid,
        resource_version=pod.metadata.version,
        name=f"{pod.metadata.namespace}/{pod.metadata.name}",
        node=pod.spec.node_name,
        gpus=gpus,
        job_id=_job_id(pod.metadata) if pod.metadata.namespace == namespace else None,
    )


def _repels(taint: Taint, gpu_resource: str) -> bool:
    return taint.effect in _REPELLING and taint.key != gpu_resource


def _gpus_of(spec: PodSpec, gpu_resource: str) -> int:
    # https://kubernetes.io/docs/concepts/workloads/pods/sidecar-containers/#resource-sharing-within-containers
    init = spec.init_containers or ()
    running = [*(spec.containers or ()), *(container for container in init if container.restart_policy == "Always")]
    together = sum(_gpus_of_container(container, gpu_resource) for container in running)
    return max([together, *(_gpus_of_container(container, gpu_resource) for container in init)])


def _gpus_of_container(container: Container, gpu_resource: str) -> int:
    resources = container.resources
    return max(_count(resources.requests, gpu_resource), _count(resources.limits, gpu_resource))


def _count(quantities: dict[str, str] | None, name: str) -> int:
    text = (quantities or {}).get(name, "0")
    return int(text) if text.isdecimal() else 0


def _job_id(metadata: Metadata) -> UUID | None:
    try:
        return UUID((metadata.labels or {}).get(JOB_ID, ""))
    except ValueError:
        return None
