"""The Kubernetes objects of a job. What they look like is held by golden files."""

import hashlib
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from services.jobs.domain.disk_manifests import disk_security, disk_source, has_disk
from services.jobs.domain.environment import DEFAULTS, HOME, is_reserved, literal
from services.jobs.domain.job import Job
from services.jobs.domain.pod import MAIN_CONTAINER, SSHD_PATIENCE, TOOLS_CONTAINER
from services.jobs.domain.pod_policy import PodPolicy, capabilities, pull_secrets, share
from shared.contracts.labels import EPOCH_LABEL, JOB_LABEL, MANAGED_BY, USER_LABEL, USERNAME_ANNOTATION

SSH_PORT, JUPYTER_PORT = 2222, 8888
TOOL = "/gpudev/bin/gpudev"
"""The tools' program in a job's pod (deploy/images/tools/README.md)."""
KEYS_ITEM = "ssh.authorized_keys"
"""In the job's Secret; no name of a variable is equal to it."""
_IDLE = "trap 'exit 0' TERM INT; while :; do sleep 5 & wait $!; done"
"""Needs nothing but a POSIX shell, and ends at once when asked to."""
_RUN = 'exec /bin/sh -c "$1" 2>&1'
"""One stream of both outputs, in the order of writing."""
_RUN_AT_HOME_NOT_AT_ROOT = f'[ "$PWD" != / ] || cd {HOME}; {_RUN}'
_LAST_RESORT_SECONDS = 900
_NEVER = 1 << 30
"""Seconds of a startup probe that must not end a job: one that runs without SSH has its time all the same."""
_UNPRIVILEGED = {"allowPrivilegeEscalation": False, "privileged": False}
_TOOLS_MOUNTS = (
    {"name": "tools", "mountPath": "/gpudev"},
    {"name": "access", "mountPath": "/gpudev/access", "readOnly": True},
)
_LABEL_VALUE = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?")

Manifest = dict[str, Any]


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


def secret_manifest(job: Job, environment: Mapping[str, str], keys: str) -> Manifest:
    """The Secret that holds the values of the job's environment, and `keys`, the authorized_keys of its first user."""
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": object_name(job), "labels": labels(job)},
        "type": "Opaque",
        "stringData": {**environment, KEYS_ITEM: keys},
    }


def pod_manifest(job: Job, policy: PodPolicy) -> Manifest:
    """The Pod, pinned to the node of the job's lease but placed by the scheduler, which counts the GPUs."""
    name = object_name(job)
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name,
            "labels": {**policy.labels, **labels(job)},
            "annotations": {**policy.annotations, USERNAME_ANNOTATION: job.username},
        },
        "spec": {
            "activeDeadlineSeconds": pod_life_seconds(job, policy),
            "affinity": _on_node(job.node or ""),
            "automountServiceAccountToken": False,
            "containers": [_container(job, policy, name)],
            **({"initContainers": [_tools(job, policy)]} if policy.tools_image else {}),
            "enableServiceLinks": False,
            # a place to work survives the end of its shell; a command runs once
            "restartPolicy": "Never" if job.command is not None else "Always",
            "securityContext": {
                "seccompProfile": {"type": "RuntimeDefault"},
                **(disk_security() if has_disk(job) else {}),
            },
            "terminationGracePeriodSeconds": policy.grace_seconds,
            "tolerations": [
                {"key": policy.gpu_resource, "operator": "Exists"},
                *(msgspec.to_builtins(toleration) for toleration in policy.extra_tolerations),
            ],
            **_operators_wishes(job, policy),
            "volumes": [
                {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": _shm_size(job, policy)}},
                {"name": "home", **(disk_source(name) if has_disk(job) else _scratch(policy.scratch_gib))},
                *(_tools_volumes(job, policy, name) if policy.tools_image else []),
            ],
        },
    }


def _operators_wishes(job: Job, policy: PodPolicy) -> Manifest:
    """Fields that are there only where the operators have said so."""
    wishes = {
        "hostUsers": False if policy.user_namespaces else None,
        "imagePullSecrets": pull_secrets(job, policy) or None,
        "priorityClassName": policy.priority_class,
        "runtimeClassName": policy.runtime_class,
    }
    return {name: wish for name, wish in wishes.items() if wish is not None}


def pod_life_seconds(job: Job, policy: PodPolicy) -> int:
    """When Kubernetes ends the pod even if nobody else does, counted from when its node takes it.

    The job's own time begins later, up to `prepare_seconds`, so this is longer than any job may last by that and by
    what ending one takes.
    """
    return max(policy.longest_seconds, job.duration_seconds) + math.ceil(policy.prepare_seconds) + _LAST_RESORT_SECONDS


def service_manifest(job: Job, policy: PodPolicy, pod_uid: str) -> Manifest:
    """The NodePort Service of the pod; it dies with it."""
    name = object_name(job)
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "labels": labels(job), "ownerReferences": [owner_reference(name, pod_uid)]},
        "spec": {
            "type": "NodePort",
            "selector": {JOB_LABEL: str(job.id), EPOCH_LABEL: str(job.epoch)},
            "ports": [
                {"name": port, "port": number, "targetPort": number, "protocol": "TCP"}
                for port, number in _ports(policy).items()
            ],
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
        "command": [literal(word) for word in _command(job, policy)],
        "env": _environment(job, policy, secret_name),
        "resources": {kind: {**gpus, **amounts} for kind, amounts in share(job, policy).items()},
        "securityContext": {**_UNPRIVILEGED, "capabilities": capabilities(policy)},
        "volumeMounts": [
            {"name": "shm", "mountPath": "/dev/shm"},  # noqa: S108 - shared memory, in the pod
            {"name": "home", "mountPath": HOME},
            *(_TOOLS_MOUNTS if policy.tools_image else []),
        ],
        **_working_directory(job, policy),
        **(_probes(policy) if policy.tools_image else {}),
    }


def _command(job: Job, policy: PodPolicy) -> Sequence[str]:
    shell = ["/bin/sh", "-c"]
    if policy.tools_image is not None:
        directory = [] if job.start_directory is None else ["--in", job.start_directory]
        listing = ["--list", HOME] if has_disk(job) else []
        patience = ["--await", str(round(SSHD_PATIENCE.total_seconds()))]
        command = [] if job.command is None else [*patience, "--", *shell, job.command]
        return [TOOL, "run", *directory, *listing, *command]
    if job.command is None:
        return [*shell, _IDLE]
    script = _RUN_AT_HOME_NOT_AT_ROOT if job.start_directory is None else _RUN
    return [*shell, script, "sh", job.command]


def _working_directory(job: Job, policy: PodPolicy) -> Manifest:
    """Where the container starts, and what exec in it does; the image's own says where when nothing is said here.

    The tools go to the command's directory themselves: made by the container's runtime it would be root's.
    """
    directory = job.start_directory
    if directory is None:
        return {}
    return {"workingDir": directory if policy.tools_image is None else HOME}


def _environment(job: Job, policy: PodPolicy, secret_name: str) -> list[Manifest]:
    """Of everything in the container, whichever way it came in.

    With the tools a HOME of the user's is the command's alone, which finds it among its first files.
    """
    own = [name for name in job.env_var_names if not is_reserved(name)]
    plain = {name: value for name, value in DEFAULTS.items() if name not in own}
    if policy.tools_image is not None or "HOME" not in own:
        plain["HOME"] = HOME
        own = [name for name in own if name != "HOME"]
    given = [{"name": name, "value": value} for name, value in sorted(plain.items())]
    return given + [_variable(name, secret_name) for name in own]


def _variable(name: str, secret_name: str) -> Manifest:
    """By name, not all of the Secret: it holds more than the environment."""
    return {"name": name, "valueFrom": {"secretKeyRef": {"name": secret_name, "key": name}}}


def _tools(job: Job, policy: PodPolicy) -> Manifest:
    """Copies the tools; it ends before the main container begins, so that its share costs nothing."""
    return {
        "name": TOOLS_CONTAINER,
        "image": policy.tools_image,
        "imagePullPolicy": policy.tools_pull_policy,
        "command": ["/gpudev-tools/bin/gpudev", "install", "/gpudev"],
        "resources": share(job, policy),
        "securityContext": {**_UNPRIVILEGED, "capabilities": {"drop": ["ALL"]}},
        "volumeMounts": [{"name": "tools", "mountPath": "/gpudev"}],
    }


def _tools_volumes(job: Job, policy: PodPolicy, secret_name: str) -> list[Manifest]:
    items = [{"key": KEYS_ITEM, "path": "authorized_keys"}]
    if "HOME" in job.env_var_names:
        items.append({"key": "HOME", "path": "home"})
    return [
        {"name": "tools", **_scratch(policy.tools_gib)},
        {"name": "access", "secret": {"secretName": secret_name, "items": items}},
    ]


def _scratch(gib: int) -> Manifest:
    return {"emptyDir": {"sizeLimit": f"{gib}Gi"}}


def _probes(policy: PodPolicy) -> Manifest:
    """Ready is when sshd answers: it is asked every second until it does, and rarely from then on."""
    probe = {"exec": {"command": [TOOL, "ready"]}, "timeoutSeconds": 5}
    return {
        "ports": [{"name": name, "containerPort": port, "protocol": "TCP"} for name, port in _ports(policy).items()],
        "startupProbe": {**probe, "periodSeconds": 1, "failureThreshold": _NEVER},
        "readinessProbe": {**probe, "periodSeconds": 10, "failureThreshold": 3},
    }


def _ports(policy: PodPolicy) -> dict[str, int]:
    return {"ssh": SSH_PORT, "jupyter": JUPYTER_PORT} if policy.tools_image else {"ssh": SSH_PORT}


def _on_node(node: str) -> Manifest:
    """By the node's name: the label kubernetes.io/hostname need not be equal to it."""
    match = {"key": "metadata.name", "operator": "In", "values": [node]}
    terms = [{"matchFields": [match]}]
    return {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}}


def _shm_size(job: Job, policy: PodPolicy) -> str:
    return f"{job.gpu_count * policy.shm_gib_per_gpu}Gi"
