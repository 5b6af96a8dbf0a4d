"""A pod's status from the states of its containers: pure."""

from dataclasses import dataclass, field
from datetime import datetime

from deploy.local.cluster.machinery.objects import Object, timestamp


@dataclass(slots=True)
class ContainerView:
    """What is known of one container; a worker keeps it, `container_status` writes it out."""

    name: str
    image: str
    state: Object = field(default_factory=lambda: {"waiting": {"reason": "ContainerCreating"}})
    last_state: Object = field(default_factory=dict)
    restart_count: int = 0
    ready: bool = False
    started: bool = False
    container_id: str = ""

    @property
    def exit_code(self) -> int | None:
        """The exit code of an ended container, None while it waits or runs."""
        code = self.state.get("terminated", {}).get("exitCode")
        return None if code is None else int(code)


@dataclass(frozen=True, slots=True)
class PodFacts:
    """What the status says beside the containers."""

    pod_ip: str
    host_ip: str
    started_at: datetime
    failure: tuple[str, str] | None = None
    """Reason and message of a pod that the kubelet itself failed."""


def pod_status(
    pod: Object, init: list[ContainerView], main: list[ContainerView], facts: PodFacts, moment: datetime
) -> Object:
    """The whole status; transition times of unchanged conditions are kept from `pod`."""
    phase = "Failed" if facts.failure else pod_phase(pod["spec"], init, main)
    initialized = all(view.exit_code == 0 for view in init)
    ended = phase in {"Succeeded", "Failed"}
    status: Object = {
        **{key: value for key, value in pod["status"].items() if key not in {"reason", "message"}},
        "phase": phase,
        "hostIP": facts.host_ip,
        "podIP": facts.pod_ip,
        "podIPs": [{"ip": facts.pod_ip}],
        "startTime": timestamp(facts.started_at),
        "conditions": _conditions(pod, main, phase, initialized=initialized, moment=moment),
        "containerStatuses": [container_status(view) for view in main],
    }
    if init:
        status["initContainerStatuses"] = [container_status(view) for view in init]
    if facts.failure:
        status["reason"], status["message"] = facts.failure
    if ended:
        for entry in status["containerStatuses"]:
            entry["ready"] = entry["started"] = False
    return status


def pod_phase(spec: Object, init: list[ContainerView], main: list[ContainerView]) -> str:
    """Pending, Running, Succeeded or Failed, by the kubelet's rules."""
    policy = spec["restartPolicy"]
    if any(view.exit_code not in {None, 0} for view in init) and policy == "Never":
        return "Failed"
    if any(view.exit_code != 0 for view in init):
        return "Pending"
    if any("waiting" in view.state and not view.last_state for view in main):
        return "Pending"
    codes = [view.exit_code for view in main]
    if policy == "Always" or any(code is None for code in codes):
        return "Running"
    if all(code == 0 for code in codes):
        return "Succeeded"
    return "Failed" if policy == "Never" else "Running"


def container_status(view: ContainerView) -> Object:
    """One entry of containerStatuses."""
    created = bool(view.container_id)
    return {
        "name": view.name,
        "image": view.image,
        "imageID": f"simulated://{view.image}" if created else "",
        "containerID": f"processes://{view.container_id}" if created else "",
        "state": view.state,
        "lastState": view.last_state,
        "ready": view.ready,
        "started": view.started,
        "restartCount": view.restart_count,
    }


def _conditions(
    pod: Object, main: list[ContainerView], phase: str, *, initialized: bool, moment: datetime
) -> list[Object]:
    unready = [view.name for view in main if not view.ready]
    reason, message = "", ""
    if phase == "Succeeded":
        reason = "PodCompleted"
    elif unready or phase == "Failed":
        reason, message = "ContainersNotReady", f"containers with unready status: [{' '.join(unready)}]"
    if phase == "Failed":
        reason, message = "PodFailed", ""
    ready = not reason
    initializing = (
        "" if initialized else "ContainersNotInitialized",
        "" if initialized else "containers with incomplete status",
    )
    wanted = [
        ("Initialized", initialized or phase == "Succeeded", *initializing),
        ("Ready", ready, reason, message),
        ("ContainersReady", ready, reason, message),
        ("PodScheduled", True, "", ""),
    ]
    old = {entry["type"]: entry for entry in pod["status"].get("conditions", [])}
    made = [_condition(old.get(kind), kind, holds, why, text, moment) for kind, holds, why, text in wanted]
    known = {kind for kind, *_ in wanted}
    return [*made, *(entry for kind, entry in old.items() if kind not in known)]


def _condition(  # noqa: PLR0917  the fields of one condition
    old: Object | None, kind: str, holds: bool, reason: str, message: str, moment: datetime
) -> Object:
    status = "True" if holds else "False"
    since = old["lastTransitionTime"] if old and old["status"] == status else timestamp(moment)
    made: Object = {"type": kind, "status": status, "lastProbeTime": None, "lastTransitionTime": since}
    if reason:
        made["reason"] = reason
    if message:
        made["message"] = message
    return made
