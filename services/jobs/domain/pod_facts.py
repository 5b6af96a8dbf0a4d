"""What a Pod's status means for its job, in words for its user."""

import re
from datetime import datetime
from enum import Enum

import msgspec

from services.jobs.domain.pod import MAIN_CONTAINER, TOOLS_CONTAINER, Condition, ContainerStatus, Pod, Terminated


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
    VOLUME = "volume"
    """A volume is not there yet; it is waited for as long as a start may take."""
    REFUSED = "refused"
    """Admission or a quota does not let the pod be made."""
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
    began_at: datetime | None = None
    """When its container began to run, by the node's clock; None before, and where the cluster does not say."""
    ready_at: datetime | None = None
    """Since when it has been ready, by the node's clock; None while it is not."""
    restarts: int = 0
    """How often its container was restarted."""
    restart_reason: str | None = None
    """Why that happened last, for a person; None when it never did."""
    mounting: bool = False
    """It has a node, and none of its containers has begun: its volumes come first."""
    disruption: str | None = None
    """Why the cluster takes the pod away, for a person; None when it does not say."""
    last_message: str | None = None
    """What the command's container left at its end, empty when nothing; None while it has not ended."""


def is_passing(facts: PodFacts) -> bool:
    """Whether the pod is on its way as it should be, so that what comes next is worth more than this."""
    under_way = facts.state in {PodState.STARTING, PodState.NOT_READY}
    return under_way and facts.fault is None and not facts.deleting and facts.disruption is None


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
    Fault.CONFIG: "The container cannot be created",
    Fault.CRASH: "The container does not stay up",
    Fault.FINAL: "The image {image} cannot be used",
}
_PULL_ERRORS = (
    (
        "not allowed",
        re.compile(r"denied|unauthorized|forbidden|authori[sz]ation|authentication|\b40[13]\b", re.IGNORECASE),
    ),
    ("not found", re.compile(r"not ?found|unknown|does not exist|\b404\b", re.IGNORECASE)),
    (
        "could not be reached",
        re.compile(
            r"no such host|server misbehaving|dial |lookup |refused|unreachable|reset|time.?out|deadline|tls|x509|eof"
            r"|too many requests|\b429\b|\b50\d\b",
            re.IGNORECASE,
        ),
    ),
)
"""By what container runtimes write of a registry's answer; the first that fits."""
_NO_TOOLS = "The job's tools could not be installed"
_POD_TEXTS = {
    "Evicted": "The pod was evicted",
    "Preempting": "The pod was evicted in favour of one with a higher priority",
    "Preempted": "The pod was evicted in favour of one with a higher priority",
    "NodeLost": "The node was lost",
    "NodeShutdown": "The node was shut down",
    "Terminated": "The node was shut down",
    "Shutdown": "The node was shut down",
    "DeadlineExceeded": "The pod was stopped at its deadline",
    "UnexpectedAdmissionError": "The node refused the pod",
}
_OUT_OF_MEMORY = "The job ran out of memory and was killed"
_PARTLY_OUT_OF_MEMORY = "The job ran out of memory: a process of it was killed"
_DISRUPTIONS = {
    "EvictionByEvictionAPI": "The pod was evicted, as when its node is drained",
    "PreemptionByScheduler": "The pod was evicted in favour of one with a higher priority",
    "DeletionByTaintManager": "The pod was evicted from its node, which no longer accepts such pods",
    "DeletionByPodGC": "The pod was deleted because its node is gone",
    "TerminationByKubelet": "The node ended the pod",
}
"""By the reasons of the condition DisruptionTarget."""
_OOM_KILLED = "OOMKilled"
_NEVER_BEGAN = frozenset({"StartError", "ContainerCannotRun", "RunContainerError", "CreateContainerError"})
_NOT_BEGUN = frozenset({None, "", "PodInitializing", "ContainerCreating"})
_REFUSALS = ("OutOf", "UnexpectedAdmissionError", "NodeAffinity", "Insufficient", "TopologyAffinityError")
_MAX_MESSAGE = 300
_MAX_WHAT = 1000


def read_pod(pod: Pod) -> PodFacts:
    """What the pod's status says."""
    status = pod.status
    container = next((c for c in status.container_statuses if c.name == MAIN_CONTAINER), None)
    facts = _read_state(pod, container)
    ended = container.state.terminated if container else None
    running = container.state.running if container else None
    conditions = {condition.type: condition for condition in status.conditions}
    ready = conditions.get("Ready")
    return msgspec.structs.replace(
        facts,
        uid=pod.metadata.uid,
        deleting=pod.metadata.deletion_timestamp is not None,
        host_ip=status.host_ip,
        began_at=running.started_at if running else ended.started_at if ended else None,
        ready_at=ready.last_transition_time if ready is not None and ready.status == "True" else None,
        restarts=container.restart_count if container else 0,
        restart_reason=_read_restart(container),
        mounting=_waits_for_volumes(pod),
        disruption=_read_disruption(conditions.get("DisruptionTarget")),
        last_message=(ended.message or "") if ended else None,
    )


def _read_restart(container: ContainerStatus | None) -> str | None:
    if container is None or container.restart_count == 0:
        return None
    before = container.last_state.terminated
    if before is None:
        return "The container was restarted"
    if before.reason == _OOM_KILLED:
        return f"{_OUT_OF_MEMORY}: its container was restarted"
    return f"The container ended with exit code {before.exit_code} and was restarted"


def _waits_for_volumes(pod: Pod) -> bool:
    status = pod.status
    scheduled = any(one.type == "PodScheduled" and one.status == "True" for one in status.conditions)
    seen = [*status.init_container_statuses, *status.container_statuses]
    begun = any(
        one.state.running or one.state.terminated or (one.state.waiting and one.state.waiting.reason not in _NOT_BEGUN)
        for one in seen
    )
    return scheduled and status.phase == "Pending" and not begun


def _read_disruption(target: Condition | None) -> str | None:
    if target is None or target.status != "True":
        return None
    return with_cause(_DISRUPTIONS.get(target.reason or "", "The cluster ended the pod"), target.message)


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
        return PodFacts(uid="", state=PodState.FAILED, detail=with_cause("The pod failed", pod.status.message))
    return None


def _read_failed_pod(pod: Pod, terminated: Terminated | None) -> PodFacts:
    reason = pod.status.reason or ""
    if reason.startswith(_REFUSALS) and terminated is None:
        detail = with_cause("The node refused the pod", pod.status.message or reason)
        return PodFacts(uid="", state=PodState.REFUSED, detail=detail)
    detail = with_cause(_POD_TEXTS.get(reason, f"The pod failed ({reason})"), pod.status.message)
    # a command that ends well because it is asked to has not done what it was to do: its 0 is not told
    exit_code = (terminated.exit_code or None) if terminated else None
    return PodFacts(uid="", state=PodState.FAILED, detail=detail, exit_code=exit_code, began=terminated is not None)


def _read_terminated(terminated: Terminated) -> PodFacts:
    reason = terminated.reason or ""
    if reason in _NEVER_BEGAN:
        detail = with_cause("The container could not be started", terminated.message)
        return PodFacts(uid="", state=PodState.FAILED, detail=detail, exit_code=terminated.exit_code or None)
    if reason == "ContainerStatusUnknown":
        detail = with_cause("The node lost the container, as happens when it restarts", terminated.message)
        return PodFacts(uid="", state=PodState.FAILED, detail=detail, began=True)
    if reason == _OOM_KILLED:
        # the runtime says so also when the command outlived the process that was killed: its 0 is no success then
        detail = _OUT_OF_MEMORY if terminated.exit_code else _PARTLY_OUT_OF_MEMORY
        return PodFacts(
            uid="", state=PodState.FAILED, detail=detail, exit_code=terminated.exit_code or None, began=True
        )
    return PodFacts(uid="", state=PodState.EXITED, exit_code=terminated.exit_code, began=True)


def _read_living(pod: Pod, container: ContainerStatus | None) -> PodFacts:
    conditions = {condition.type: condition for condition in pod.status.conditions}
    scheduled = conditions.get("PodScheduled")
    if scheduled is not None and scheduled.status == "False" and scheduled.reason == "Unschedulable":
        detail = with_cause("The cluster has no room for the pod", scheduled.message)
        return PodFacts(uid="", state=PodState.STARTING, detail=detail, fault=Fault.UNSCHEDULABLE)
    if container is not None and container.state.running is not None:
        return _read_running(pod, container)
    begun = pod.status.container_statuses or pod.status.init_container_statuses
    if not begun and (scheduled is None or scheduled.status != "True"):
        return PodFacts(uid="", state=PodState.STARTING, detail="waiting for its node")
    return _read_tools(pod) or _read_waiting(container, _image(pod))


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
    why = "out of memory" if ended.reason == _OOM_KILLED else f"exit code {ended.exit_code}"
    what = f"{_NO_TOOLS} ({why})"
    if pod.spec.restart_policy == "Never":
        return PodFacts(uid="", state=PodState.FAILED, detail=with_cause(what, ended.message))
    return PodFacts(uid="", state=PodState.STARTING, detail=with_cause(what, ended.message), fault=Fault.CRASH)


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
    detail = with_cause(f"{_NO_TOOLS}{about} ({waiting.reason})", _public(fault, waiting.message, image))
    return PodFacts(uid="", state=PodState.STARTING, detail=detail, fault=fault)


def _read_waiting(container: ContainerStatus | None, image: str) -> PodFacts:
    """Kubernetes tells a container that waits for its image like one that is being made."""
    waiting = container.state.waiting if container else None
    fault = _FAULTS.get(waiting.reason or "") if waiting is not None else None
    if waiting is None or fault is None:
        return PodFacts(uid="", state=PodState.STARTING, detail=f"pulling image {image}, then starting it")
    about, message = waiting.reason, waiting.message
    before = container.last_state.terminated if container else None
    if fault is Fault.CRASH and before is not None:  # what went wrong is said there, here only that it did
        about = "out of memory" if before.reason == _OOM_KILLED else f"exit code {before.exit_code}"
        message = before.message or waiting.message
    detail = with_cause(f"{_FAULT_TEXTS[fault].format(image=image)} ({about})", _public(fault, message, image))
    return PodFacts(uid="", state=PodState.STARTING, detail=detail, fault=fault)


def _public(fault: Fault, message: str | None, image: str) -> str | None:
    """What users may know of a fault; of images only its kind: the rest tells of registries and mirrors inside."""
    if fault not in {Fault.IMAGE, Fault.FINAL}:
        return message
    words_of_fault = _name_of(image).sub("", message or "")
    return next((words for words, pattern in _PULL_ERRORS if pattern.search(words_of_fault)), None)


def _name_of(image: str) -> re.Pattern[str]:
    """Finds an image's name with its tag, as they stand in references and URLs: `authentication:404` may be one."""
    tagged, _, _ = image.partition("@")
    name, colon, tag = tagged.rpartition(":")
    if not colon or "/" in tag:  # of a registry's port
        name, tag = tagged, ""
    domain, slash, path = name.partition("/")
    if slash and ("." in domain or ":" in domain or domain == "localhost"):
        name = path
    ending = rf"(?:(?::|/manifests/){re.escape(tag)})?" if tag else ""
    return re.compile(r"(?<=[/\"'])" + re.escape(name) + ending + r"(?![\w-])")


def _tools(pod: Pod) -> ContainerStatus | None:
    return next((s for s in pod.status.init_container_statuses if s.name == TOOLS_CONTAINER), None)


def _image(pod: Pod) -> str:
    return next((spec.image for spec in pod.spec.containers if spec.name == MAIN_CONTAINER), "")


def with_cause(what: str, message: str | None) -> str:
    """`what`, and the cluster's `message` behind it: one printable line, of bounded length."""
    about, line = _line(what), _line(message or "")[:_MAX_MESSAGE]
    return f"{about}: {line}" if line else about


def _line(text: str) -> str:
    printable = "".join(character if character.isprintable() else " " for character in text[: 1 << 14])
    return " ".join(printable.split())[:_MAX_WHAT]
