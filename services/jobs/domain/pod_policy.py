"""What the cluster's operators decide about jobs' pods."""

import math
import re

import msgspec

from services.jobs.domain.job import Job
from shared.contracts.catalogue import INSTANCE_TYPES
from shared.contracts.tolerations import Toleration

_JOBS_PART = 0.9
"""Of a node's CPUs and memory; the rest is the system's."""
_CAPABILITIES = (
    *("CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "SETFCAP"),
    *("SETGID", "SETUID", "KILL", "SYS_CHROOT", "NET_BIND_SERVICE", "AUDIT_WRITE"),
)
"""What root of an image needs to install packages, to become another user and to let sessions in: of those that
containers have by themselves all but MKNOD, NET_RAW and SETPCAP. Kubernetes's baseline standard allows each."""
_CAPABILITY = re.compile(r"[A-Z]+(_[A-Z0-9]+)*")
_SECRET_NAME = re.compile(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?")
_USER = "{user}"


class PodPolicy(msgspec.Struct, frozen=True, kw_only=True):
    gpu_resource: str = "nvidia.com/gpu"
    image_pull_policy: str = "IfNotPresent"
    image_pull_secrets: tuple[str, ...] = ()
    """Names, in which {user} stands for the job's user."""
    grace_seconds: int = 30
    shm_gib_per_gpu: int = 16
    scratch_gib: int = 100
    """Home of a job without a disk: a pod that writes more is evicted."""
    tools_gib: int = 4
    """The tools, an unpacked JupyterLab, and the end of the command's output."""
    layer_gib_per_gpu: int = 50
    """What a job writes elsewhere in its container: a pod that writes more is evicted."""
    tools_image: str | None = None
    """None: bare pods, without SSH and Jupyter."""
    tools_pull_policy: str = "IfNotPresent"
    cpu_per_gpu: int | None = None
    """Requested, and at most. None: at most the job's part of a node of its type, and nothing is requested."""
    memory_gib_per_gpu: int | None = None
    """Likewise."""
    extra_capabilities: tuple[str, ...] = ()
    user_namespaces: bool = False
    priority_class: str | None = None
    runtime_class: str | None = None
    extra_tolerations: tuple[Toleration, ...] = ()
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}
    job_domain: str | None = None
    """Under which each job has a host; None: jobs have none."""
    job_tls_secret: str | None = None
    job_ingress_class: str | None = None
    job_ingress_annotations: dict[str, str] = {}
    prepare_seconds: float = 3600.0
    """From the lease to a ready pod at most."""
    longest_seconds: int = 168 * 3600
    """No job lives longer, however often it was extended."""


def share(job: Job, policy: PodPolicy) -> dict[str, dict[str, str]]:
    """A container's part of its node beside the GPUs, as limits and requests.

    What is not requested is said to be 0: where nothing is said Kubernetes requests as much as the limit.
    """
    instance = INSTANCE_TYPES[job.instance_type]
    part = _JOBS_PART * job.gpu_count / instance.gpus_per_node
    cpu, memory = policy.cpu_per_gpu, policy.memory_gib_per_gpu
    scratch = 0 if job.ebs_volume_id is not None else policy.scratch_gib
    # the volumes count with what is written in the container, whose limit is the pod's
    storage = scratch + policy.tools_gib + job.gpu_count * policy.layer_gib_per_gpu
    limits = {
        "cpu": str(max(1, math.floor(part * instance.cpus)) if cpu is None else job.gpu_count * cpu),
        "memory": f"{math.floor(part * instance.memory_gib) if memory is None else job.gpu_count * memory}Gi",
        "ephemeral-storage": f"{storage}Gi",
    }
    requests = {
        "cpu": "0" if cpu is None else limits["cpu"],
        "memory": "0" if memory is None else limits["memory"],
        "ephemeral-storage": "0",
    }
    return {"limits": limits, "requests": requests}


def capabilities(policy: PodPolicy) -> dict[str, list[str]]:
    """Of a job's container."""
    return {"drop": ["ALL"], "add": [*_CAPABILITIES, *policy.extra_capabilities]}


def pull_secrets(job: Job, policy: PodPolicy) -> list[dict[str, str]]:
    """The Secrets that a job's image may be pulled with; one that is not there is passed over."""
    user = name_part(job.username)
    return [{"name": name.replace(_USER, user)} for name in policy.image_pull_secrets]


def name_part(username: str) -> str:
    """The username in an object's name: small letters and digits are as they are, other bytes `-` and their hex.

    So no two users have the same, whatever they call themselves.
    """
    plain = frozenset(b"abcdefghijklmnopqrstuvwxyz0123456789")
    return "".join(chr(byte) if byte in plain else f"-{byte:02x}" for byte in username.encode())


def parse_capabilities(text: str) -> tuple[str, ...]:
    """Names joined by commas, as Kubernetes has them: without CAP_.

    Raises:
        ValueError: One is no such name.
    """
    names = _split(text)
    for name in names:
        if not _CAPABILITY.fullmatch(name) or name.startswith("CAP_") or name == "ALL":
            raise ValueError(f"{name!r} is no capability to add, such as IPC_LOCK")
    return names


def parse_pull_secrets(text: str) -> tuple[str, ...]:
    """Names joined by commas, in which {user} stands for the job's user.

    Raises:
        ValueError: One is no name of a Secret.
    """
    names = _split(text)
    for name in names:
        if not _SECRET_NAME.fullmatch(name.replace(_USER, "user")):
            raise ValueError(f"{name!r} is no name of a Secret")
    return names


def _split(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())
