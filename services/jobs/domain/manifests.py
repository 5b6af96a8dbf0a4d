"""The Kubernetes objects of a job. What they look like is held by golden files."""

import hashlib
import re
from collections.abc import Mapping
from typing import Any

import msgspec

from services.jobs.domain.job import Job
from services.jobs.domain.pod import EPOCH_LABEL, JOB_LABEL, MAIN_CONTAINER, USER_LABEL

MANAGED_BY = {"app.kubernetes.io/managed-by": "gpudev"}
SSH_PORT = 22
_IDLE = "trap 'exit 0' TERM INT; while :; do sleep 5 & wait $!; done"
"""Needs nothing but a POSIX shell, and ends at once when asked to."""
_LABEL_VALUE = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?")

Manifest = dict[str, Any]


class PodPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """What the cluster's operators decide about pods."""

    gpu_resource: str = "nvidia.com/gpu"
    image_pull_policy: str = "IfNotPresent"
    grace_seconds: int = 30
    shm_gib_per_gpu: int = 16
    longest_seconds: int = 168 * 3600
    """No job lives longer, however often it was extended; Kubernetes ends a pod then even if nobody else does."""


def object_name(job: Job) -> str:
    """Name of the pod, its Secret and its Service: the same at every try under this lease, unlike any other's."""
    return f"gpu-dev-{job.id}-{job.epoch}"


def labels(job: Job) -> dict[str, str]:
    """Labels of everything that belongs to the job's lease."""
    return {
        **MANAGED_BY,
        JOB_LABEL: str(job.id),
        USER_LABEL: label_value(job.username),
        EPOCH_LABEL: str(job.epoch),
    }


def label_value(text: str) -> str:
    """`text` as the value of a label: itself where it is one, else its plain part and a hash against collisions."""
    if _LABEL_VALUE.fullmatch(text):
        return text
    digest = hashlib.sha256(text.encode()).hexdigest()[:8]
    plain = re.sub(r"[^A-Za-z0-9._-]", "-", text).strip("._-")[:50]
    return f"{plain}-{digest}".lstrip("-")


def secret_manifest(job: Job, environment: Mapping[str, str]) -> Manifest:
    """The Secret that holds the values of the job's environment."""
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": object_name(job), "labels": labels(job)},
        "type": "Opaque",
        "stringData": dict(environment),
    }


def pod_manifest(job: Job, policy: PodPolicy) -> Manifest:
    """The Pod, pinned to the node of the job's lease but placed by the scheduler, which counts the GPUs."""
    name = object_name(job)
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": labels(job), "annotations": {"gpudev/username": job.username}},
        "spec": {
            "activeDeadlineSeconds": policy.longest_seconds,
            "affinity": _on_node(job.node or ""),
            "automountServiceAccountToken": False,
            "containers": [_container(job, policy, name)],
            "enableServiceLinks": False,
            # a place to work survives the end of its shell; a command runs once
            "restartPolicy": "Never" if job.command is not None else "Always",
            "securityContext": {"seccompProfile": {"type": "RuntimeDefault"}},
            "terminationGracePeriodSeconds": policy.grace_seconds,
            "tolerations": [{"key": policy.gpu_resource, "operator": "Exists"}],
            "volumes": [
                {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": _shm_size(job, policy)}},
                {"name": "workspace", "emptyDir": {}},
            ],
        },
    }


def service_manifest(job: Job, pod_uid: str) -> Manifest:
    """The NodePort Service of the pod; it dies with it."""
    name = object_name(job)
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "labels": labels(job), "ownerReferences": [owner_reference(name, pod_uid)]},
        "spec": {
            "type": "NodePort",
            "selector": {JOB_LABEL: str(job.id), EPOCH_LABEL: str(job.epoch)},
            "ports": [{"name": "ssh", "port": SSH_PORT, "targetPort": SSH_PORT, "protocol": "TCP"}],
        },
    }


def owner_reference(pod_name: str, pod_uid: str) -> Manifest:
    """Makes an object die with its pod."""
    return {"apiVersion": "v1", "kind": "Pod", "name": pod_name, "uid": pod_uid}


def _container(job: Job, policy: PodPolicy, secret_name: str) -> Manifest:
    gpus = {policy.gpu_resource: str(job.gpu_count)}
    return {
        "name": MAIN_CONTAINER,
        "image": job.image,
        "imagePullPolicy": policy.image_pull_policy,
        "command": ["/bin/sh", "-c", _IDLE if job.command is None else job.command],
        "envFrom": [{"secretRef": {"name": secret_name}}],
        "resources": {"limits": gpus, "requests": gpus},
        "securityContext": {"allowPrivilegeEscalation": False, "privileged": False},
        "volumeMounts": [
            {"name": "shm", "mountPath": "/dev/shm"},  # noqa: S108 - shared memory, in the pod
            {"name": "workspace", "mountPath": "/workspace"},
        ],
        "workingDir": "/workspace",
    }


def _on_node(node: str) -> Manifest:
    """By the node's name: the label kubernetes.io/hostname need not be equal to it."""
    match = {"key": "metadata.name", "operator": "In", "values": [node]}
    terms = [{"matchFields": [match]}]
    return {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}}


def _shm_size(job: Job, policy: PodPolicy) -> str:
    return f"{job.gpu_count * policy.shm_gib_per_gpu}Gi"
