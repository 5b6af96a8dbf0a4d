"""The parts of Kubernetes objects that matter to capacity, and what they mean for GPUs."""

from collections.abc import Sequence

import msgspec

from services.capacity.domain.fleet import GpuPod, NodeFacts, RequestsPerGpu
from shared.contracts.catalogue import gpu_type_of_node
from shared.contracts.labels import job_id_of
from shared.contracts.tolerations import Toleration, tolerated
from shared.kubernetes import quantity

INSTANCE_TYPE = "node.kubernetes.io/instance-type"
GPU_PRODUCT = "nvidia.com/gpu.product"
ZONE = "topology.kubernetes.io/zone"
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
        """The resourceVersion as a number; that a higher one is newer is promised by Kubernetes since 1.35."""
        return version_number(self.resource_version)


class Taint(msgspec.Struct, frozen=True):
    key: str = ""
    value: str = ""
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
    """A resourceVersion as a number; 0, which is older than any, for text that is no number."""
    return int(resource_version) if resource_version and resource_version.isdecimal() else 0


NOTHING = RequestsPerGpu()


def node_facts(
    node: NodeObject,
    gpu_resource: str,
    requests_per_gpu: RequestsPerGpu = NOTHING,
    tolerations: Sequence[Toleration] = (),
) -> NodeFacts:
    """The facts of a Node object.

    Args:
        node: As Kubernetes tells it.
        gpu_resource: Name of the extended resource.
        requests_per_gpu: Of jobs' pods.
        tolerations: Of jobs' pods, beside that of the GPU resource's key.
    """
    tolerations = (Toleration(gpu_resource, "Exists"), *tolerations)
    allocatable = node.status.allocatable or {}
    labels = node.metadata.labels or {}
    instance_type = labels.get(INSTANCE_TYPE)
    return NodeFacts(
        name=node.metadata.name,
        uid=node.metadata.uid,
        resource_version=node.metadata.version,
        instance_type=instance_type,
        gpu_type=gpu_type_of_node(instance_type, labels.get(GPU_PRODUCT)),
        zone=labels.get(ZONE),
        gpus=_count(allocatable, gpu_resource),
        ready=any(c.type == "Ready" and c.status == "True" for c in node.status.conditions or ()),
        schedulable=not node.spec.unschedulable and not any(_repels(t, tolerations) for t in node.spec.taints or ()),
        gpus_by_cpu=requests_per_gpu.gpus_by_cpu(quantity(allocatable.get("cpu"))),
        gpus_by_memory=requests_per_gpu.gpus_by_memory(quantity(allocatable.get("memory"))),
    )


def gpu_pod(
    pod: PodObject, gpu_resource: str, namespace: str, requests_per_gpu: RequestsPerGpu = NOTHING
) -> GpuPod | None:
    """The pod as a holder of GPUs, or of CPU or memory that jobs' pods would need; None: it holds none.

    A pod holds what it asks for from the moment that it is bound to a node until it has ended; while it is being
    terminated it still holds the device.

    Args:
        pod: Of any namespace.
        gpu_resource: Name of the extended resource.
        namespace: Of the jobs; in any other the label of a job means nothing.
        requests_per_gpu: Of jobs' pods.
    """
    gpus = round(_sum_of(pod.spec, gpu_resource))
    cpu = requests_per_gpu.gpus_by_cpu(_sum_of(pod.spec, "cpu"))
    memory = requests_per_gpu.gpus_by_memory(_sum_of(pod.spec, "memory"))
    if not (gpus or cpu or memory) or not pod.spec.node_name or pod.status.phase in _TERMINAL_PHASES:
        return None
    return GpuPod(
        uid=pod.metadata.uid,
        resource_version=pod.metadata.version,
        name=f"{pod.metadata.namespace}/{pod.metadata.name}",
        node=pod.spec.node_name,
        gpus=gpus,
        job_id=job_id_of(pod.metadata.labels) if pod.metadata.namespace == namespace else None,
        gpus_by_cpu=cpu,
        gpus_by_memory=memory,
    )


def _repels(taint: Taint, tolerations: Sequence[Toleration]) -> bool:
    return taint.effect in _REPELLING and not tolerated(tolerations, taint.key, taint.value, taint.effect)


def _sum_of(spec: PodSpec, resource: str) -> float:
    # https://kubernetes.io/docs/concepts/workloads/pods/sidecar-containers/#resource-sharing-within-containers
    init = spec.init_containers or ()
    running = [*(spec.containers or ()), *(container for container in init if container.restart_policy == "Always")]
    together = sum(_request_of(container, resource) for container in running)
    return max([together, *(_request_of(container, resource) for container in init)])


def _request_of(container: Container, resource: str) -> float:
    # a limit without a request is the request
    requests, limits = container.resources.requests or {}, container.resources.limits or {}
    return quantity(requests.get(resource, limits.get(resource)))


def _count(quantities: dict[str, str], name: str) -> int:
    text = quantities.get(name, "0")
    return int(text) if text.isdecimal() else 0
