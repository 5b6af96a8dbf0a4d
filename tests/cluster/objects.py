"""Bodies that the tests send."""

from typing import Any

IMAGE = "local/debian:bookworm"
"""Has a shell; on a real node it has to be there already."""


def pod(name: str | None = None, *, command: list[str] | None = None, gpus: int = 0, **spec: Any) -> dict[str, Any]:
    container: dict[str, Any] = {"name": "main", "image": IMAGE, "imagePullPolicy": "IfNotPresent"}
    if command is not None:
        container["command"] = command
    if gpus:
        container["resources"] = {"limits": {"nvidia.com/gpu": str(gpus)}}
    container |= spec.pop("container", {})
    metadata: dict[str, Any] = {"name": name} if name else {"generateName": "test-"}
    metadata |= spec.pop("metadata", {})
    defaults = {"terminationGracePeriodSeconds": 1, "automountServiceAccountToken": False}
    return {"metadata": metadata, "spec": {**defaults, "containers": [container], **spec}}


def shell(script: str, **spec: Any) -> dict[str, Any]:
    """A pod that runs a script once."""
    return pod(command=["sh", "-c", script], **{"restartPolicy": "Never", **spec})


def configmap(name: str, data: dict[str, str] | None = None, **metadata: Any) -> dict[str, Any]:
    return {"metadata": {"name": name, **metadata}, "data": data or {}}


def node(name: str, *, gpus: int = 8) -> dict[str, Any]:
    """A Node without a kubelet. Ready has to be said through its status."""
    amounts = {"cpu": "8", "memory": "32Gi", "pods": "110", "nvidia.com/gpu": str(gpus)}
    return {
        "metadata": {"name": name, "labels": {"gpudev-test/node": name}},
        "status": {
            "capacity": amounts,
            "allocatable": amounts,
            "conditions": [{"type": "Ready", "status": "True", "reason": "Test", "message": ""}],
        },
    }
