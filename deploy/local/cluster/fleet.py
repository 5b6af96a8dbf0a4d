"""Instance types and the Node objects of the simulated fleet."""

import platform
from collections import Counter
from dataclasses import dataclass

from deploy.local.cluster.apiserver.discovery import VERSION
from deploy.local.cluster.machinery.objects import Object, now, timestamp
from deploy.local.region import AVAILABILITY_ZONE, REGION

NODE_ADDRESS = "127.0.0.1"  # node ports are served there
_PODS = "110"


@dataclass(frozen=True, slots=True)
class InstanceType:
    """What one machine offers."""

    gpus: int
    product: str
    """As GPU feature discovery labels it."""
    cpus: int
    memory_gib: int


_H100, _A100 = "NVIDIA-H100-80GB-HBM3", "NVIDIA-A100-SXM4-40GB"
CATALOGUE = {
    "p6-b200.48xlarge": InstanceType(8, "NVIDIA-B200", 192, 2048),
    "p5en.48xlarge": InstanceType(8, "NVIDIA-H200", 192, 2048),
    "p5e.48xlarge": InstanceType(8, "NVIDIA-H200", 192, 2048),
    "p5.48xlarge": InstanceType(8, _H100, 192, 2048),
    "p4d.24xlarge": InstanceType(8, _A100, 96, 1152),
    "g6.12xlarge": InstanceType(4, "NVIDIA-L4", 48, 192),
    "g5.12xlarge": InstanceType(4, "NVIDIA-A10G", 48, 192),
    "g4dn.12xlarge": InstanceType(4, "Tesla-T4", 48, 192),
}


def node_names(instance_types: list[str]) -> dict[str, str]:
    """Node names, each with its instance type; the same list gives the same names. Raises ValueError."""
    counts: Counter[str] = Counter()
    names: dict[str, str] = {}
    for instance_type in instance_types:
        if instance_type not in CATALOGUE:
            raise ValueError(f"unknown instance type {instance_type!r}; known: {', '.join(CATALOGUE)}")
        names[f"{instance_type.replace('.', '-')}-{counts[instance_type]}"] = instance_type
        counts[instance_type] += 1
    return names


def node(name: str, instance_type: str) -> Object:
    """The Node as its kubelet registers it, Ready."""
    shape = CATALOGUE[instance_type]
    moment = timestamp(now())
    amounts = {
        "cpu": str(shape.cpus),
        "memory": f"{shape.memory_gib}Gi",
        "ephemeral-storage": "1000Gi",
        "pods": _PODS,
        "nvidia.com/gpu": str(shape.gpus),
    }
    return {
        "kind": "Node",
        "apiVersion": "v1",
        "metadata": {"name": name, "labels": _labels(name, instance_type, shape)},
        "spec": {"providerID": f"aws:///local-1a/{name}"},
        "status": {
            "capacity": amounts,
            "allocatable": dict(amounts),
            "conditions": conditions(moment),
            "addresses": [
                {"type": "InternalIP", "address": NODE_ADDRESS},
                {"type": "Hostname", "address": name},
            ],
            "daemonEndpoints": {"kubeletEndpoint": {"Port": 10250}},
            "nodeInfo": _node_info(),
        },
    }


def conditions(moment: str, since: str | None = None) -> list[Object]:
    """The conditions of a healthy node; `since` is when they became so."""

    def condition(kind: str, status: str, reason: str, message: str) -> Object:
        return {
            "type": kind,
            "status": status,
            "reason": reason,
            "message": message,
            "lastHeartbeatTime": moment,
            "lastTransitionTime": since or moment,
        }

    return [
        condition("MemoryPressure", "False", "KubeletHasSufficientMemory", "kubelet has sufficient memory available"),
        condition("DiskPressure", "False", "KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
        condition("PIDPressure", "False", "KubeletHasSufficientPID", "kubelet has sufficient PID available"),
        condition("Ready", "True", "KubeletReady", "kubelet is posting ready status"),
    ]


def _labels(name: str, instance_type: str, shape: InstanceType) -> dict[str, str]:
    return {
        "kubernetes.io/hostname": name,
        "kubernetes.io/os": "linux",
        "kubernetes.io/arch": "amd64",
        "node.kubernetes.io/instance-type": instance_type,
        "topology.kubernetes.io/region": REGION,
        "topology.kubernetes.io/zone": AVAILABILITY_ZONE,
        "nvidia.com/gpu.present": "true",
        "nvidia.com/gpu.count": str(shape.gpus),
        "nvidia.com/gpu.product": shape.product,
    }


def _node_info() -> dict[str, str]:
    return {
        "architecture": "amd64",
        "operatingSystem": "linux",
        "osImage": "GPU Dev simulator",
        "kernelVersion": platform.release(),
        "kubeletVersion": VERSION,
        "kubeProxyVersion": VERSION,
        "containerRuntimeVersion": "processes://1",
        "machineID": "",
        "systemUUID": "",
        "bootID": "",
    }
