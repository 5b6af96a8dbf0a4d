"""What is in AWS or in the cluster of a stack though no row says so: as somebody may make it by hand."""

from typing import Any
from uuid import uuid4

from deploy.local.aws import Cloud
from tests.support.stack import LocalStack


def ec2(stack: LocalStack) -> Any:
    """EC2 of the stack's AWS, as the disks service may use it."""
    cloud = Cloud(directory=stack.state.cloud, disks=stack.state.disks, port=stack.parts()["moto"].port or 0)
    return cloud.client("ec2", cloud.keys().disks)


def make_stray_pod(stack: LocalStack, name: str = "stray") -> None:
    """A pod with the labels of a job, of which there is none, and a GPU."""
    labels = {"gpudev/job-id": str(uuid4()), "gpudev/epoch": "1", "app.kubernetes.io/managed-by": "gpudev"}
    limits = {"nvidia.com/gpu": "1"}
    container = {
        "name": "main",
        "image": "debian:12",
        "command": ["sleep", "900"],
        "resources": {"limits": limits, "requests": limits},
    }
    spec = {"containers": [container], "nodeName": "p5-48xlarge-1"}
    stack.cluster_api().create_namespaced_pod("gpudev", {"metadata": {"name": name, "labels": labels}, "spec": spec})
