"""Gauges of the queue and of the GPUs."""

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import msgspec
from prometheus_client import Gauge

from services.capacity.context import Context
from services.capacity.domain.fleet import Node
from services.capacity.operations.read import read_nodes
from services.capacity.storage.measure import LEASED_WITHOUT_POD, PODS_WITHOUT_LEASE, QUEUE
from shared.contracts.catalogue import CATALOGUE
from shared.measures import seconds_since

LASTING = timedelta(minutes=2)
"""Pods are made after their lease, and leases end after their pods: only what lasts longer is a mismatch."""
_TYPES = frozenset(instance.gpu_type for instance in CATALOGUE)

_waiting = Gauge("gpudev_queue_jobs", "Jobs that wait in the queue, by GPU type", ["gpu_type"])
_oldest = Gauge(
    "gpudev_queue_oldest_seconds", "How long the job has waited that has waited longest for GPUs", ["gpu_type"]
)
_late = Gauge(
    "gpudev_queue_late_seconds",
    "How long the waiting job is past the p90 that it was first given that is furthest past it",
    ["gpu_type"],
)
_gpus = Gauge("gpudev_gpus", "GPUs of nodes that are there, by type and state", ["gpu_type", "state"])
_mismatches = Gauge(
    "gpudev_lease_mismatches", "Where leases and the cluster have disagreed for two minutes, by kind", ["kind"]
)


class Mismatch(msgspec.Struct, frozen=True, kw_only=True):
    """Leases and the cluster disagree."""

    kind: str
    """As in the metric."""
    object_kind: str
    """What `name` names: node or pods."""
    name: str
    job_id: UUID | None
    since: datetime
    """When this replica has seen it first."""


class Measurer:
    """Measures, and remembers since when what disagrees does.

    Args:
        context: The service's.
    """

    def __init__(self, context: Context) -> None:
        self._context = context
        self._mismatches: dict[str, dict[str, Mismatch]] = {}

    async def measure_queue(self) -> None:
        """How many jobs wait, for how long, and how late."""
        now = self._context.clock()
        rows = {row["gpu_type"]: row for row in await self._context.database.fetch_all(QUEUE)}
        for gpu_type in _TYPES | rows.keys():
            row = rows.get(gpu_type)
            _waiting.labels(gpu_type).set(row["jobs"] if row else 0)
            _oldest.labels(gpu_type).set(seconds_since(row["oldest"] if row else None, now))
            _late.labels(gpu_type).set(seconds_since(row["promised"] if row else None, now))

    async def measure_gpus(self) -> None:
        """What the GPUs are used for, and whether leases and pods agree about it."""
        nodes = await read_nodes(self._context.database)
        for gpu_type in _TYPES | {node.gpu_type for node in nodes}:
            for state, count in _uses(node for node in nodes if node.gpu_type == gpu_type).items():
                _gpus.labels(gpu_type, state).set(count)
        database, now = self._context.database, self._context.clock()
        leases, pods = await database.fetch_all(LEASED_WITHOUT_POD), await database.fetch_all(PODS_WITHOUT_LEASE)
        found: dict[str, dict[str, Mismatch]] = {
            "lease_without_pod": {row["key"]: _of_row("lease_without_pod", "node", row, now) for row in leases},
            "pod_without_lease": {row["key"]: _of_row("pod_without_lease", "pods", row, now) for row in pods},
            "node_overcommitted": {node.name: _of_node(node, now) for node in nodes if node.held > node.gpus},
        }
        for kind, seen in found.items():
            before = self._mismatches.get(kind, {})
            self._mismatches[kind] = {key: before.get(key, mismatch) for key, mismatch in seen.items()}
        lasting = self.lasting_mismatches(now)
        for kind in found:
            _mismatches.labels(kind).set(sum(mismatch.kind == kind for mismatch in lasting))

    def lasting_mismatches(self, now: datetime) -> list[Mismatch]:
        """Those of the last measuring that have lasted."""
        every = (mismatch for seen in self._mismatches.values() for mismatch in seen.values())
        return [mismatch for mismatch in every if now - mismatch.since >= LASTING]


def _of_row(kind: str, object_kind: str, row: Mapping[str, Any], now: datetime) -> Mismatch:
    return Mismatch(kind=kind, object_kind=object_kind, name=row["name"], job_id=row["job_id"], since=now)


def _of_node(node: Node, now: datetime) -> Mismatch:
    return Mismatch(kind="node_overcommitted", object_kind="node", name=node.name, job_id=None, since=now)


def _uses(nodes: Iterable[Node]) -> dict[str, int]:
    uses = {"leased": 0, "foreign": 0, "free": 0, "out_of_use": 0}
    for node in nodes:
        uses["leased"] += len(node.leased)
        uses["foreign"] += node.foreign
        uses["free"] += node.placeable
        uses["out_of_use"] += max(0, node.gpus - node.held - node.placeable)
    return uses
