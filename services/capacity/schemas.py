"""Answers, in the contract's key order; what is ours comes after."""

from datetime import datetime

import msgspec

from services.capacity.domain.availability import ClusterStatus, TypeAvailability
from services.capacity.domain.fleet import Node
from shared.contracts.jobs import JobStatus


class NodeEntry(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    total: int
    """Allocatable GPUs; those of a node that is not ready or not schedulable are in no sum."""
    in_use: int
    """Leased, or held by foreign pods."""
    ready: bool
    schedulable: bool

    @classmethod
    def of(cls, node: Node) -> "NodeEntry":
        """Entry of a node."""
        return cls(name=node.name, total=node.gpus, in_use=node.in_use, ready=node.ready, schedulable=node.schedulable)


class GpuTypeEntry(msgspec.Struct, frozen=True, kw_only=True):
    gpu_type: str
    total: int
    """Allocatable GPUs of nodes that are ready and schedulable; always `available` + `in_use`."""
    available: int
    """GPUs that a job could start on now."""
    in_use: int
    """Of the total: leased, or held by foreign pods."""
    queued: int
    """GPUs, not jobs, that are waited for."""
    max_per_node: int
    max_placeable: int
    """GPUs of the largest job that fits on one node now."""
    nodes: list[NodeEntry]
    as_of: datetime | None
    """When the cluster's nodes and pods were last known to be complete; null before it has ever answered."""

    @classmethod
    def of(cls, entry: TypeAvailability, as_of: datetime | None) -> "GpuTypeEntry":
        """Entry of a GPU type."""
        return cls(
            gpu_type=entry.gpu_type,
            total=entry.total,
            available=entry.available,
            in_use=entry.in_use,
            queued=entry.queued,
            max_per_node=entry.max_per_node,
            max_placeable=entry.max_placeable,
            nodes=[NodeEntry.of(node) for node in entry.nodes],
            as_of=as_of,
        )


class Availability(msgspec.Struct, frozen=True, kw_only=True):
    availability: dict[str, GpuTypeEntry]
    """By GPU type: those that have nodes or waiting jobs."""
    timestamp: datetime
    as_of: datetime | None
    """As in each entry."""


class ClusterStatusBody(msgspec.Struct, frozen=True, kw_only=True):
    total_gpus: int
    available_gpus: int
    in_use_gpus: int
    queued_gpus: int
    active_reservations: int
    preparing_reservations: int
    queued_reservations: int
    pending_reservations: int
    by_gpu_type: dict[str, GpuTypeEntry]
    timestamp: datetime
    as_of: datetime | None
    """When the cluster's nodes and pods were last known to be complete; null before it has ever answered."""

    @classmethod
    def of(cls, status: ClusterStatus, as_of: datetime | None, timestamp: datetime) -> "ClusterStatusBody":
        """Sums over the types, and jobs by status."""
        types = status.types
        return cls(
            total_gpus=sum(entry.total for entry in types),
            available_gpus=sum(entry.available for entry in types),
            in_use_gpus=sum(entry.in_use for entry in types),
            queued_gpus=sum(entry.queued for entry in types),
            active_reservations=status.jobs[JobStatus.ACTIVE],
            preparing_reservations=status.jobs[JobStatus.PREPARING],
            queued_reservations=status.jobs[JobStatus.QUEUED],
            pending_reservations=status.jobs[JobStatus.PENDING],
            by_gpu_type={entry.gpu_type: GpuTypeEntry.of(entry, as_of) for entry in types},
            timestamp=timestamp,
            as_of=as_of,
        )
