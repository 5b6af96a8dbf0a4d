"""The part of a Kubernetes Pod that the rules read (https://kubernetes.io/docs/reference/kubernetes-api/)."""

from datetime import datetime, timedelta
from typing import Any

import msgspec

MAIN_CONTAINER = "main"
TOOLS_CONTAINER = "tools"
SSHD_PATIENCE = timedelta(seconds=60)
"""So long after its container's start a job's time counts, and its command runs, whether sshd answers or not."""


class KubernetesObject(msgspec.Struct, frozen=True, rename="camel"):
    """Base of the parts of Kubernetes objects."""


class Meta(KubernetesObject, frozen=True):
    name: str = ""
    uid: str = ""
    resource_version: str = ""
    labels: dict[str, str] = {}
    creation_timestamp: datetime | None = None
    deletion_timestamp: datetime | None = None


class Waiting(KubernetesObject, frozen=True):
    reason: str | None = None
    message: str | None = None


class Running(KubernetesObject, frozen=True):
    started_at: datetime | None = None


class Terminated(KubernetesObject, frozen=True):
    exit_code: int = 0
    reason: str | None = None
    message: str | None = None
    started_at: datetime | None = None


class ContainerState(KubernetesObject, frozen=True):
    waiting: Waiting | None = None
    running: Running | None = None
    terminated: Terminated | None = None


class ContainerStatus(KubernetesObject, frozen=True):
    name: str = ""
    state: ContainerState = ContainerState()
    last_state: ContainerState = ContainerState()
    """How its run before this one ended."""
    restart_count: int = 0
    ready: bool = False
    started: bool | None = None
    """Whether its startup probe has succeeded; None where the cluster does not say."""


class Condition(KubernetesObject, frozen=True):
    type: str = ""
    status: str = ""
    reason: str | None = None
    message: str | None = None
    last_transition_time: datetime | None = None


class PodStatus(KubernetesObject, frozen=True):
    phase: str = "Pending"
    reason: str | None = None
    message: str | None = None
    host_ip: str | None = msgspec.field(default=None, name="hostIP")
    pod_ip: str | None = msgspec.field(default=None, name="podIP")
    conditions: list[Condition] = []
    container_statuses: list[ContainerStatus] = []
    init_container_statuses: list[ContainerStatus] = []


class Container(KubernetesObject, frozen=True):
    name: str = ""
    image: str = ""
    readiness_probe: dict[str, Any] | None = None


class PodSpec(KubernetesObject, frozen=True):
    containers: list[Container] = []
    init_containers: list[Container] = []
    node_name: str | None = None
    restart_policy: str = "Always"
    active_deadline_seconds: int | None = None
    """Kubernetes ends the pod so long after its node took it; None: never."""


class Pod(KubernetesObject, frozen=True):
    metadata: Meta = Meta()
    spec: PodSpec = PodSpec()
    status: PodStatus = PodStatus()
