"""Pods that start through the tools image, by the statuses that kubelets write of them."""

import json
from typing import Any

import msgspec
import pytest

from services.jobs.domain.facts import PodFailed, PodReady
from services.jobs.domain.job import JobUser, UserState
from services.jobs.domain.next_step import FetchKeys, Limits, Make, Record, next_step
from services.jobs.domain.pod import Pod
from services.jobs.domain.pod_facts import Fault, PodState, read_pod
from shared.contracts.jobs import JobStatus
from tests.support.jobs import NOW, a_job

IMAGE, TOOLS = "docker.io/pytorch/pytorch:2.1.0", "registry.example/tools:1"
RUNNING = {"running": {"startedAt": "2026-01-20T18:00:00Z"}}
INSTALLED = {"terminated": {"exitCode": 0, "reason": "Completed"}}
INITIALISING = {"waiting": {"reason": "PodInitializing"}}


def pod(
    tools: dict[str, Any],
    main: dict[str, Any] = INITIALISING,
    *,
    restart: str = "Never",
    ready: bool = False,
    started: bool | None = None,
    **status: Any,
) -> Pod:
    raw = {
        "metadata": {"name": "p", "uid": "u"},
        "spec": {
            "restartPolicy": restart,
            "containers": [{"name": "main", "image": IMAGE, "readinessProbe": {"exec": {"command": ["x"]}}}],
            "initContainers": [{"name": "tools", "image": TOOLS}],
        },
        "status": {
            "phase": "Pending",
            "conditions": [
                {"type": "PodScheduled", "status": "True"},
                {"type": "Ready", "status": "True" if ready else "False", "reason": "ContainersNotReady"},
            ],
            "initContainerStatuses": [{"name": "tools", "state": tools, "image": TOOLS}],
            "containerStatuses": [{"name": "main", "state": main, "image": IMAGE, "started": started}],
            **status,
        },
    }
    return msgspec.json.decode(json.dumps(raw).encode(), type=Pod)


def waiting(reason: str, message: str = "why") -> dict[str, Any]:
    return {"waiting": {"reason": reason, "message": message}}


def ended(code: int, reason: str = "Error", message: str = "") -> dict[str, Any]:
    return {"terminated": {"exitCode": code, "reason": reason, "message": message}}


PULLING = f"pulling image {IMAGE}, then starting it"
NO_TOOLS = "The job's tools could not be installed"


@pytest.mark.parametrize(
    ("seen", "state", "detail"),
    [
        (pod(waiting("PodInitializing", "")), PodState.STARTING, "installing the job's tools"),
        (pod(RUNNING), PodState.STARTING, "installing the job's tools"),
        (pod(INSTALLED), PodState.STARTING, PULLING),
        (pod(INSTALLED, waiting("ContainerCreating", "")), PodState.STARTING, PULLING),
        (pod(INSTALLED, RUNNING, started=False, phase="Running"), PodState.NOT_READY, "starting sshd"),
        (pod(INSTALLED, RUNNING, started=True, phase="Running"), PodState.NOT_READY, "waiting for sshd to answer"),
        (pod(INSTALLED, RUNNING, started=True, ready=True, phase="Running"), PodState.READY, "running"),
        (pod(INSTALLED, ended(0, "Completed"), phase="Succeeded"), PodState.EXITED, ""),
        (pod(ended(1, message="no space"), phase="Failed"), PodState.FAILED, f"{NO_TOOLS} (exit code 1): no space"),
        (pod(ended(137, "OOMKilled"), phase="Failed"), PodState.FAILED, f"{NO_TOOLS} (out of memory)"),
    ],
)
def test_what_a_starting_pod_does_is_told(seen: Pod, state: PodState, detail: str) -> None:
    facts = read_pod(seen)
    assert (facts.state, facts.detail, facts.fault) == (state, detail, None)


@pytest.mark.parametrize(
    ("message", "told"),
    [
        (
            'failed to pull "r.corp/a:1": failed to resolve reference: r.corp/a:1: not found',
            "not found",
        ),
        ("rpc error: code = Unknown desc = Error: manifest unknown: manifest unknown", "not found"),
        ("pull access denied, repository does not exist or may require authorization", "not allowed"),
        ("unexpected status from HEAD request to https://mirror.corp/v2/: 401 Unauthorized", "not allowed"),
        ("dial tcp: lookup mirror.corp on 10.0.0.2:53: no such host", "could not be reached"),
        ('Get "https://10.1.2.3:5000/v2/": net/http: TLS handshake timeout', "could not be reached"),
    ],
)
def test_of_a_failed_pull_only_its_kind_is_told(message: str, told: str) -> None:
    facts = read_pod(pod(INSTALLED, waiting("ErrImagePull", message)))
    assert facts.detail == f"The image {IMAGE} cannot be pulled (ErrImagePull): {told}"


@pytest.mark.parametrize(
    ("image", "message"),
    [
        ("corp/authentication:2", 'failed to pull "docker.io/corp/authentication:2": not found'),
        ("r.corp:5000/forbidden-city:403", "https://r.corp:5000/v2/forbidden-city/manifests/403: not found"),
        ("corp/a:401", "docker.io/corp/a:401: not found"),
        ("localhost:5000/denied", 'failed to pull "localhost:5000/denied:latest": not found'),
    ],
)
def test_the_name_of_an_image_is_no_reason_why_it_cannot_be_pulled(image: str, message: str) -> None:
    seen = pod(INSTALLED, waiting("ErrImagePull", message))
    main = [msgspec.structs.replace(one, image=image) if one.name == "main" else one for one in seen.spec.containers]
    seen = msgspec.structs.replace(seen, spec=msgspec.structs.replace(seen.spec, containers=main))
    assert read_pod(seen).detail == f"The image {image} cannot be pulled (ErrImagePull): not found"


@pytest.mark.parametrize(
    ("seen", "fault", "detail"),
    [
        (
            pod(INSTALLED, waiting("ErrImagePull")),
            Fault.IMAGE,
            f"The image {IMAGE} cannot be pulled (ErrImagePull)",
        ),
        (
            pod(INSTALLED, waiting("InvalidImageName")),
            Fault.FINAL,
            f"The image {IMAGE} cannot be used (InvalidImageName)",
        ),
        (
            pod(waiting("ImagePullBackOff")),
            Fault.IMAGE,
            f"{NO_TOOLS}: The image {TOOLS} cannot be pulled (ImagePullBackOff)",
        ),
        (pod(waiting("CrashLoopBackOff"), restart="Always"), Fault.CRASH, f"{NO_TOOLS} (CrashLoopBackOff): why"),
        (pod(ended(1), restart="Always"), Fault.CRASH, f"{NO_TOOLS} (exit code 1)"),
        (
            pod(INSTALLED, waiting("CreateContainerConfigError", 'secret "s" not found')),
            Fault.CONFIG,
            'The container cannot be created (CreateContainerConfigError): secret "s" not found',
        ),
    ],
)
def test_trouble_names_what_it_is_about(seen: Pod, fault: Fault, detail: str) -> None:
    facts = read_pod(seen)
    assert (facts.state, facts.fault, facts.detail) == (PodState.STARTING, fault, detail)


def step(seen: Pod | None, *users: JobUser, **changes: Any) -> Any:
    lease: dict[str, Any] = {"epoch": 1, "node": "n1", "granted_at": NOW, "pod_uid": "u", **changes}
    job = a_job(status=JobStatus.PREPARING, users=list(users), **lease)
    return next_step(job, read_pod(seen) if seen else None, NOW, Limits())


def test_a_failed_installation_fails_the_job_that_never_began() -> None:
    seen = pod(ended(1, message="no space"), phase="Failed")
    assert step(seen) == Record(PodFailed(1, f"{NO_TOOLS} (exit code 1): no space"))


def test_a_command_that_ended_before_sshd_answered_has_started() -> None:
    seen = pod(INSTALLED, ended(0, "Completed"), phase="Succeeded", hostIP="10.0.0.1")
    assert step(seen) == Record(PodReady(1, "10.0.0.1"))


@pytest.mark.parametrize("state", UserState)
def test_the_first_users_keys_are_asked_for_once_before_the_pod_is_made(state: UserState) -> None:
    user = JobUser(name="alice", state=state, first=True, requested_at=NOW)
    asks = step(None, user, pod_uid=None)
    assert asks == (FetchKeys(user) if state is UserState.REQUESTED else Make())
