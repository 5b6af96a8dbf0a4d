"""What can happen to a job. A fact that concerns a lease carries its epoch and is void for any other."""

from datetime import datetime
from typing import TypeAlias

import msgspec


class DiskReady(msgspec.Struct, frozen=True):
    volume_id: str
    availability_zone: str


class DiskFailed(msgspec.Struct, frozen=True):
    reason: str


class QueueMoved(msgspec.Struct, frozen=True):
    position: int
    estimated_start_at: datetime | None
    reason: str | None


class Granted(msgspec.Struct, frozen=True):
    epoch: int
    node: str


class Revoked(msgspec.Struct, frozen=True):
    """Capacity took the lease back; the pod may live on, since nobody can reach its node."""

    epoch: int
    reason: str


class PodMade(msgspec.Struct, frozen=True):
    """Pod, Secret and Service exist and are tied together."""

    epoch: int
    pod_name: str
    pod_uid: str
    node_port: int | None
    """Of SSH."""
    jupyter_port: int | None = None
    lives_seconds: int | None = None
    """How long after its lease began Kubernetes lets the pod live at least; None: for ever."""


class PortsMoved(msgspec.Struct, frozen=True):
    """The Service of a pod is another than the one that was made with it."""

    epoch: int
    node_port: int | None
    """Of SSH; None: there is no Service."""
    jupyter_port: int | None
    reason: str
    """Why, for a person."""


class PodRestarted(msgspec.Struct, frozen=True):
    """The container of an active job ended and was restarted."""

    epoch: int
    restarts: int
    """So far."""
    reason: str


class PodWaits(msgspec.Struct, frozen=True):
    """The pod is on its way, or in trouble."""

    epoch: int
    detail: str
    fault: str | None = None


class PodReady(msgspec.Struct, frozen=True):
    """The job's time counts from here."""

    epoch: int
    node_ip: str | None
    since: datetime | None = None
    """None: since now."""


class CommandEnded(msgspec.Struct, frozen=True):
    epoch: int
    exit_code: int


class PodFailed(msgspec.Struct, frozen=True):
    """The pod cannot start, or was ended by something else than its command."""

    epoch: int
    reason: str
    exit_code: int | None = None


class PodRefused(msgspec.Struct, frozen=True):
    """The cluster has no room for the pod after all."""

    epoch: int
    reason: str


class PodGone(msgspec.Struct, frozen=True):
    """A live look found no pod."""

    epoch: int


class Expire(msgspec.Struct, frozen=True):
    epoch: int


class Warn(msgspec.Struct, frozen=True):
    epoch: int
    minutes: int


class Extend(msgspec.Struct, frozen=True):
    """Its owner asked for more time, and may have it."""

    seconds: int
    shown_at: datetime | None = None
    """From when on its owner sees it; None: at once."""


class UserRequested(msgspec.Struct, frozen=True):
    """Its owner asked that this GitHub user's keys open it."""

    name: str


class KeysFetched(msgspec.Struct, frozen=True):
    """The user's keys are stored."""

    epoch: int
    name: str


class UserDelayed(msgspec.Struct, frozen=True):
    epoch: int
    name: str
    reason: str


class UserRefused(msgspec.Struct, frozen=True):
    epoch: int
    name: str
    reason: str


class KeysApplied(msgspec.Struct, frozen=True):
    """The pod has these users' keys."""

    epoch: int
    names: tuple[str, ...]


class HostKeysRead(msgspec.Struct, frozen=True):
    """The pod's SSH server has these keys; none: they cannot be had."""

    epoch: int
    keys: tuple[str, ...]


class JupyterRequested(msgspec.Struct, frozen=True):
    """Its owner wants Jupyter on, with this token, or, with None, off."""

    token_sealed: bytes | None


class JupyterSwitched(msgspec.Struct, frozen=True):
    """The pod follows the wish of this number."""

    epoch: int
    revision: int


class JupyterFailed(msgspec.Struct, frozen=True):
    epoch: int
    revision: int
    reason: str


class Cancel(msgspec.Struct, frozen=True):
    reason: str = "Cancelled by its user"
    """For its owner."""


Fact: TypeAlias = (
    DiskReady
    | DiskFailed
    | QueueMoved
    | Granted
    | Revoked
    | PodMade
    | PodRestarted
    | PortsMoved
    | PodWaits
    | PodReady
    | CommandEnded
    | PodFailed
    | PodRefused
    | PodGone
    | Expire
    | Warn
    | Extend
    | UserRequested
    | KeysFetched
    | UserDelayed
    | UserRefused
    | KeysApplied
    | HostKeysRead
    | JupyterRequested
    | JupyterSwitched
    | JupyterFailed
    | Cancel
)
