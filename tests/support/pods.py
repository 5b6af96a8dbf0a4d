"""What a pod may say of itself, as the cluster would show it, and a job at the status that goes with it."""

import json
from datetime import timedelta
from typing import Any

import msgspec

from services.jobs.domain.job import Job
from services.jobs.domain.pod import Pod
from shared.contracts.jobs import JobStatus
from tests.support.jobs import NOW, a_job


def pod(phase: str = "Running", *, restart: str = "Never", deleting: bool = False, **status: Any) -> Pod:
    metadata = {"name": "p", "uid": "u", **({"deletionTimestamp": "2026-01-20T18:00:00Z"} if deleting else {})}
    raw = {"metadata": metadata, "spec": {"restartPolicy": restart}, "status": {"phase": phase, **status}}
    return msgspec.json.decode(json.dumps(raw).encode(), type=Pod)


def container(**state: Any) -> list[dict[str, Any]]:
    return [{"name": "main", "state": state}]


def ready(value: str = "True") -> list[dict[str, str]]:
    return [{"type": "PodScheduled", "status": "True"}, {"type": "Ready", "status": value}]


RUNNING = {"running": {"startedAt": "2026-01-20T18:00:00Z"}}
UNSCHEDULABLE = [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/4 nodes"}]
READY_POD = pod(conditions=ready(), containerStatuses=container(**RUNNING), hostIP="10.0.0.1")


def ended(code: int, reason: str, phase: str = "Failed", restart: str = "Never") -> Pod:
    statuses = container(terminated={"exitCode": code, "reason": reason, "message": "why"})
    return pod(phase, restart=restart, containerStatuses=statuses)


def waiting(reason: str) -> Pod:
    return pod("Pending", containerStatuses=container(waiting={"reason": reason, "message": "why"}))


def preparing(**changes: Any) -> Job:
    lease: dict[str, Any] = {"epoch": 1, "node": "n1", "granted_at": NOW, "pod_uid": "u"}
    return a_job(status=JobStatus.PREPARING, **{**lease, **changes})


def active(**changes: Any) -> Job:
    box: dict[str, Any] = {"launched_at": NOW, "expires_at": NOW + timedelta(hours=1), "detail": "running"}
    return msgspec.structs.replace(preparing(), status=JobStatus.ACTIVE, **{**box, **changes})
