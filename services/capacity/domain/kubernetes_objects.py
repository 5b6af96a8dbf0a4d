"""Kubernetes objects, as much of them as matters here, and what they mean for GPUs."""

from uuid import UUID

import msgspec

from services.capacity.domain.fleet import GpuPod, NodeFacts
from services.capacity.domain.quantity import amount
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


class Needs(msgspec.Struct, frozen=True, kw_only=True):
    """What each GPU of our pods brings along; None: nothing is asked for."""

    cpu: float | None = None
    """Cores."""
    memory_bytes: float | None = None

    def cpu_worth(self, quantity: str | None) -> float | None:
        """For how many GPUs this much CPU is enough."""
        return amount(quantity) / self.cpu if self.cpu else None

    def memory_worth(self, quantity: str | None) -> float | None:
        """For how many GPUs this much memory is enough."""
        return amount(quantity) / self.memory_bytes if self.memory_bytes else None


NOTHING = Needs()


def node_facts(node: NodeObject, gpu_resource: str, needs: Needs = NOTHING) -> NodeFacts:
    """What a Node object says."""
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
        gpus=_count(node.status.allocatable, gpu_resource),
        ready=any(c.type == "Ready" and c.status == "True" for c in node.status.conditions or ()),
        schedulable=not node.spec.unschedulable and not any(_repels(t, gpu_resource) for t in node.spec.taints or ()),
        cpu_worth=needs.cpu_worth(allocatable.get("cpu")),
        memory_worth=needs.memory_worth(allocatable.get("memory")),
    )


def gpu_pod(pod: PodObject, gpu_resource: str, namespace: str, needs: Needs = NOTHING) -> GpuPod | None:
    """The pod if it holds GPUs of a node, or CPU or memory that our pods would need: bound, and not over.

    A terminating one still holds the device.

    Args:
        pod: Any pod of the cluster.
        gpu_resource: Name of the extended resource.
        namespace: Where pods of jobs are; elsewhere our label means nothing.
        needs: Of our pods.
    """
    gpus = round(_sum_of(pod.spec, gpu_resource))
    cpu = needs.cpu_worth(str(_sum_of(pod.spec, "cpu")))
    memory = needs.memory_worth(str(_sum_of(pod.spec, "memory")))
    if not (gpus or cpu or memory) or not pod.spec.node_name or pod.status.phase in _TERMINAL_PHASES:
        return None
    return GpuPod(
        uid=pod.metadata.uid,
        resource_version=pod.metadata.version,
        name=f"{pod.metadata.namespace}/{pod.metadata.name}",
        node=pod.spec.node_name,
        gpus=gpus,
        job_id=_job_id(pod.metadata) if pod.metadata.namespace == namespace else None,
        cpu_worth=cpu,
        memory_worth=memory,
    )


def _repels(taint: Taint, gpu_resource: str) -> bool:
    return taint.effect in _REPELLING and taint.key != gpu_resource


def _sum_of(spec: PodSpec, resource: str) -> float:
    # https://kubernetes.io/docs/concepts/workloads/pods/sidecar-containers/#resource-sharing-within-containers
    init = spec.init_containers or ()
    running = [*(spec.containers or ()), *(container for container in init if container.restart_policy == "Always")]
    together = sum(_request_of(container, resource) for container in running)
    return max([together, *(_request_of(container, resource) for container in init)])


def _request_of(container: Container, resource: str) -> float:
    # a limit without a request is the request
    requests, limits = container.resources.requests or {}, container.resources.limits or {}
    return amount(requests.get(resource, limits.get(resource)))


def _count(quantities: dict[str, str] | None, name: str) -> int:
    text = (quantities or {}).get(name, "0")
    return int(text) if text.isdecimal() else 0


def _job_id(metadata: Metadata) -> UUID | None:
    try:
        return UUID((metadata.labels or {}).get(JOB_ID, ""))
    except ValueError:
        return None
