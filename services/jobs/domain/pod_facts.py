"""What a Pod's status means for its job, in words that a researcher understands."""

from enum import Enum

import msgspec

from services.jobs.domain.pod import MAIN_CONTAINER, TOOLS_CONTAINER, ContainerStatus, Pod, Terminated, Waiting


class PodState(Enum):
    STARTING = "starting"
    """On its way, or in trouble that may pass (`fault`)."""
    READY = "ready"
    NOT_READY = "not ready"
    """Its container runs, or is between two runs, and does not answer."""
    EXITED = "exited"
    """The command ended by itself, with `exit_code`."""
    FAILED = "failed"
    """Something else than the command ended it, or it can never start."""
    REFUSED = "refused"
    """The node turned it away before it began."""


class Fault(Enum):
    """Trouble in starting that gets some time to pass."""

    IMAGE = "image"
    CONFIG = "config"
    CRASH = "crash"
    UNSCHEDULABLE = "unschedulable"
    FINAL = "final"
    """Cannot pass."""


class PodFacts(msgspec.Struct, frozen=True, kw_only=True):
    uid: str
    state: PodState
    deleting: bool = False
    """Someone asked for its deletion."""
    detail: str = ""
    """What it is doing or what is wrong, for a person."""
    fault: Fault | None = None
    exit_code: int | None = None
    began: bool = False
    """The user's command has run, at least for a moment."""
    host_ip: str | None = None
    last_message: str | None = None
    """What the command's container left at its end, empty when nothing; None while it has not ended."""


_FAULTS = {
    "ErrImagePull": Fault.IMAGE,
    "ImagePullBackOff": Fault.IMAGE,
    "RegistryUnavailable": Fault.IMAGE,
    "ImageInspectError": Fault.IMAGE,
    "SignatureValidationFailed": Fault.IMAGE,
    "InvalidImageName": Fault.FINAL,
    "ErrImageNeverPull": Fault.FINAL,
    "CreateContainerConfigError": Fault.CONFIG,
    "CreateContainerError": Fault.CONFIG,
    "RunContainerError": Fault.CRASH,
    "CrashLoopBackOff": Fault.CRASH,
}
_FAULT_TEXTS = {
    Fault.IMAGE: "The image {image} cannot be pulled",
    Fault.CONFIG: "The container cannot be made",
    Fault.CRASH: "The container does not stay up",
    Fault.FINAL: "The image {image} cannot be used",
}
_NO_TOOLS = "The job's tools could not be installed"
_POD_TEXTS = {
    "Evicted": "The pod was evicted",
    "Preempting": "The pod was evicted for a more important one",
    "Preempted": "The pod was evicted for a more important one",
    "NodeLost": "The node was lost",
    "NodeShutdown": "The node was shut down",
    "Terminated": "The node was shut down",
    "Shutdown": "The node was shut down",
    "DeadlineExceeded": "The pod was stopped at its deadline",
    "OOMKilled": "The job ran out of memory and was killed",
    "UnexpectedAdmissionError": "The node refused the pod",
}
_NEVER_BEGAN = frozenset({"StartError", "ContainerCannotRun", "RunContainerError", "CreateContainerError"})
_REFUSALS = ("OutOf", "UnexpectedAdmissionError", "NodeAffinity", "Insufficient", "TopologyAffinityError")
_MAX_MESSAGE = 300


def read_pod(pod: Pod) -> PodFacts:
    """What the pod's status says."""
    status = pod.status
    container = next((c for c in status.container_statuses if c.name == MAIN_CONTAINER), None)
    facts = _read_state(pod, container)
    ended = container.state.terminated if container else None
    return msgspec.structs.replace(
        facts, uid=pod.metadata.uid, deleting=pod.metadata.deletion_timestamp is not None, host_ip=status.host_ip,
        last_message=(ended.message or "") if ended else None,
    )  # fmt: skip


def _read_state(pod: Pod, container: ContainerStatus | None) -> PodFacts:
    status = pod.status
    if status.reason == "NodeLost":  # it may live on: nobody can tell
        return PodFacts(uid="", state=PodState.NOT_READY, detail=_POD_TEXTS["NodeLost"])
    terminated = container.state.terminated if container else None
    if status.phase == "Failed" and status.reason:
        return _read_failed_pod(pod, terminated)
    over = status.phase in {"Succeeded", "Failed"} or pod.spec.restart_policy == "Never"
    if terminated is not None and over:
        return _read_terminated(terminated)
    return _read_failed_tools(pod) or _read_bare_phase(pod) or _read_living(pod, container)


def _read_bare_phase(pod: Pod) -> PodFacts | None:
    if pod.status.phase == "Succeeded":
        return PodFacts(uid="", state=PodState.EXITED, exit_code=0, began=True)
    if pod.status.phase == "Failed":
        return PodFacts(uid="", state=PodState.FAILED, detail=_text("The pod failed", pod.status.message))
    return None


def _read_failed_pod(pod: Pod, terminated: Terminated | None) -> PodFacts:
    reason = pod.status.reason or ""
    if reason.startswith(_REFUSALS) and terminated is None:
        detail = _text("The node refused the pod", pod.status.message or reason)
        return PodFacts(uid="", state=PodState.REFUSED, detail=detail)
    detail = _text(_POD_TEXTS.get(reason, f"The pod failed ({reason})"), pod.status.message)
    exit_code = terminated.exit_code if terminated else None
    return PodFacts(uid="", state=PodState.FAILED, detail=detail, exit_code=exit_code, began=terminated is not None)


def _read_terminated(terminated: Terminated) -> PodFacts:
    reason = terminated.reason or ""
    if reason in _NEVER_BEGAN:
        detail = _text("The container could not be started", terminated.message)
        return PodFacts(uid="", state=PodState.FAILED, detail=detail, exit_code=terminated.exit_code)
    if reason == "OOMKilled":
        detail = _POD_TEXTS["OOMKilled"]
        return PodFacts(uid="", state=PodState.FAILED, detail=detail, exit_code=terminated.exit_code, began=True)
    return PodFacts(uid="", state=PodState.EXITED, exit_code=terminated.exit_code, began=True)


def _read_living(pod: Pod, container: ContainerStatus | None) -> PodFacts:
    conditions = {condition.type: condition for condition in pod.status.conditions}
    scheduled = conditions.get("PodScheduled")
    if scheduled is not None and scheduled.status == "False" and scheduled.reason == "Unschedulable":
        detail = _text("The cluster has no room for the pod", scheduled.message)
        return PodFacts(uid="", state=PodState.STARTING, detail=detail, fault=Fault.UNSCHEDULABLE)
    if container is not None and container.state.running is not None:
        return _read_running(pod, container)
    begun = pod.status.container_statuses or pod.status.init_container_statuses
    if not begun and (scheduled is None or scheduled.status != "True"):
        return PodFacts(uid="", state=PodState.STARTING, detail="waiting for its node")
    return _read_tools(pod) or _read_waiting(container.state.waiting if container else None, _image(pod))


def _read_running(pod: Pod, container: ContainerStatus) -> PodFacts:
    ready = next((condition for condition in pod.status.conditions if condition.type == "Ready"), None)
    if ready is not None and ready.status == "True":
        return PodFacts(uid="", state=PodState.READY, detail="running", began=True)
    detail = "waiting for the container to be ready"
    if any(spec.readiness_probe for spec in pod.spec.containers if spec.name == MAIN_CONTAINER):
        detail = "waiting for sshd to answer" if container.started else "starting sshd"
    return PodFacts(uid="", state=PodState.NOT_READY, detail=detail, began=True)


def _read_failed_tools(pod: Pod) -> PodFacts | None:
    """None unless the installation of the tools has failed."""
    tools = _tools(pod)
    ended = tools.state.terminated if tools is not None else None
    if ended is None or ended.exit_code == 0:
        return None
    why = "out of memory" if ended.reason == "OOMKilled" else f"exit code {ended.exit_code}"
    what = f"{_NO_TOOLS} ({why})"
    if pod.spec.restart_policy == "Never":
        return PodFacts(uid="", state=PodState.FAILED, detail=_text(what, ended.message))
    return PodFacts(uid="", state=PodState.STARTING, detail=_text(what, ended.message), fault=Fault.CRASH)


def _read_tools(pod: Pod) -> PodFacts | None:
    """None once the tools are installed, and where there are none."""
    if not any(spec.name == TOOLS_CONTAINER for spec in pod.spec.init_containers):
        return None
    tools = _tools(pod)
    if tools is not None and tools.state.terminated is not None:
        return None
    waiting = tools.state.waiting if tools is not None else None
    fault = _FAULTS.get(waiting.reason or "") if waiting is not None else None
    if waiting is None or fault is None:
        return PodFacts(uid="", state=PodState.STARTING, detail="installing the job's tools")
    image = next(spec.image for spec in pod.spec.init_containers if spec.name == TOOLS_CONTAINER)
    about = f": {_FAULT_TEXTS[fault].format(image=image)}" if fault in {Fault.IMAGE, Fault.FINAL} else ""
    detail = _text(f"{_NO_TOOLS}{about} ({waiting.reason})", waiting.message)
    return PodFacts(uid="", state=PodState.STARTING, detail=detail, fault=fault)


def _read_waiting(waiting: Waiting | None, image: str) -> PodFacts:
    """Kubernetes tells a container that waits for its image like one that is being made."""
    fault = _FAULTS.get(waiting.reason or "") if waiting is not None else None
    if waiting is None or fault is None:
        return PodFacts(uid="", state=PodState.STARTING, detail=f"pulling image {image}, then starting it")
    detail = _text(f"{_FAULT_TEXTS[fault].format(image=image)} ({waiting.reason})", waiting.message)
    return PodFacts(uid="", state=PodState.STARTING, detail=detail, fault=fault)


def _tools(pod: Pod) -> ContainerStatus | None:
    return next((s for s in pod.status.init_container_statuses if s.name == TOOLS_CONTAINER), None)


def _image(pod: Pod) -> str:
    return next((spec.image for spec in pod.spec.containers if spec.name == MAIN_CONTAINER), "")


def _text(what: str, message: str | None) -> str:
    """`message` is the cluster's: one line of it, of bounded length."""
    line = " ".join((message or "").split())[:_MAX_MESSAGE]
    return f"{what}: {line}" if line else what
