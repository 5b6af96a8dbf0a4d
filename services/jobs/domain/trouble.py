"""Trouble of a pod that its status does not show: the events about it, and the state of its node."""

from datetime import UTC, datetime

import msgspec

from services.jobs.domain.pod import Condition, KubernetesObject, Meta
from services.jobs.domain.pod_facts import Fault, PodFacts, with_cause

_VOLUME_TROUBLE = frozenset({"FailedMount", "FailedAttachVolume", "FailedMapVolume"})
_LONG_AGO = datetime(1970, 1, 1, tzinfo=UTC)


class PodEvent(KubernetesObject, frozen=True):
    """An Event of Kubernetes about a pod."""

    metadata: Meta = Meta()
    reason: str | None = None
    message: str | None = None
    last_timestamp: datetime | None = None
    event_time: datetime | None = None

    @property
    def told_at(self) -> tuple[datetime, int]:
        """When it was said last, in an order that also tells events of one second apart."""
        moment = self.last_timestamp or self.event_time or self.metadata.creation_timestamp or _LONG_AGO
        version = self.metadata.resource_version
        return moment.replace(microsecond=0), int(version) if version.isdecimal() else 0


class NodeSpec(KubernetesObject, frozen=True):
    unschedulable: bool = False


class NodeStatus(KubernetesObject, frozen=True):
    conditions: tuple[Condition, ...] = ()


class Node(KubernetesObject, frozen=True):
    spec: NodeSpec = NodeSpec()
    status: NodeStatus = NodeStatus()


def newest(events: list[PodEvent]) -> PodEvent | None:
    """The event that was said last; None when there is none."""
    return max(events, key=lambda event: event.told_at, default=None)


def with_event(facts: PodFacts, event: PodEvent | None) -> PodFacts:
    """Facts of a pod whose volumes are awaited, with what the newest event says of them.

    What was said earlier is over: a volume that is there at last is followed by the pull of an image.
    """
    if event is None or event.reason not in _VOLUME_TROUBLE:
        return facts
    detail = with_cause(f"A volume of the job cannot be mounted yet ({event.reason})", event.message)
    return msgspec.structs.replace(facts, detail=detail, fault=Fault.VOLUME)


def node_trouble(name: str, node: Node | None) -> str | None:
    """Why a node's pods were deleted, for a person; None when nothing is wrong with it.

    Args:
        name: The node's.
        node: None: there is no such node any more.
    """
    if loss := node_loss(name, node):
        return loss
    # kubectl drain, and whatever else empties a node, cordons it first
    drained = node is not None and node.spec.unschedulable
    return f"Its node was drained: {name} accepts no more pods" if drained else None


def node_loss(name: str, node: Node | None) -> str | None:
    """Why nothing on a node can be reached, for a person, with arguments as those of `node_trouble`; None: it can."""
    if node is None:
        return f"The node was lost: Node {name} is gone"
    if not any(one.type == "Ready" and one.status == "True" for one in node.status.conditions):
        return f"The node was lost: Node {name} does not answer"
    return None
