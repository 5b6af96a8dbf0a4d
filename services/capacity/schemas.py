"""Answers, in the contract's key order; fields that were added come after."""

from collections.abc import Sequence
from datetime import date, datetime, timedelta

import msgspec

from services.capacity.domain.availability import Snapshot, TypeAvailability, count_availability, count_cluster
from services.capacity.domain.fleet import Node
from services.capacity.domain.usage import DayUsage, Period
from shared.contracts.jobs import JobStatus
from shared.web.response import Answer


class NodeEntry(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    total: int
    """Allocatable GPUs. A node that is not ready or not schedulable counts in none of the sums."""
    in_use: int
    """GPUs that are leased to jobs or held by other pods."""
    ready: bool
    schedulable: bool

    @classmethod
    def of(cls, node: Node) -> "NodeEntry":
        """Entry of a node."""
        return cls(name=node.name, total=node.gpus, in_use=node.in_use, ready=node.ready, schedulable=node.schedulable)


class GpuTypeEntry(Answer, frozen=True, kw_only=True):
    gpu_type: str
    total: int
    """Allocatable GPUs of nodes that are ready and schedulable; always `available` + `in_use`."""
    available: int
    """GPUs on which a job could start now."""
    in_use: int
    """GPUs of the total that are leased to jobs or held by other pods."""
    queued: int
    """Number of GPUs, not of jobs, that waiting jobs ask for."""
    max_per_node: int
    max_placeable: int
    """GPUs of the largest job that could start now, on one node."""
    nodes: list[NodeEntry]
    as_of: datetime | None
    """Time of the newest information that is counted here; null until the cluster has answered once."""

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


class Availability(Answer, frozen=True, kw_only=True):
    availability: dict[str, GpuTypeEntry]
    """By GPU type; types that have nodes or waiting jobs."""
    timestamp: datetime
    as_of: datetime | None
    """As in each entry."""

    @classmethod
    def of(cls, snapshot: Snapshot, timestamp: datetime) -> "Availability":
        """Entries of all types."""
        as_of = snapshot.as_of
        entries = {entry.gpu_type: GpuTypeEntry.of(entry, as_of) for entry in count_availability(snapshot)}
        return cls(availability=entries, timestamp=timestamp, as_of=as_of)


class Forecast(msgspec.Struct, frozen=True, kw_only=True):
    """How well estimates of starts have held in the last 30 days."""

    starts: int
    """Jobs that started, and had been given a p90 while they waited."""
    started_before_p90: int
    """Those of them that started before the first p90 that they were given."""
    share: float | None
    """Should be about 0.9; null before the first start."""


class ClusterStatusBody(Answer, frozen=True, kw_only=True):
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
    """Time of the newest information that is counted here; null until the cluster has answered once."""
    forecast: Forecast

    @classmethod
    def of(cls, snapshot: Snapshot, timestamp: datetime) -> "ClusterStatusBody":
        """Sums over the types, and jobs by status."""
        status, as_of = count_cluster(snapshot), snapshot.as_of
        starts, in_time = snapshot.starts, snapshot.starts_in_time
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
            forecast=Forecast(
                starts=starts, started_before_p90=in_time, share=round(in_time / starts, 3) if starts else None
            ),
        )


class UsageRow(Answer, frozen=True, kw_only=True):
    date: date
    """In UTC."""
    username: str
    gpu_type: str
    gpu_hours: float
    user_id: int
    """Two users may have one name."""


class Usage(Answer, frozen=True, kw_only=True):
    first: date = msgspec.field(name="from")
    """First day that is counted."""
    last: date = msgspec.field(name="to")
    """Last day that is counted."""
    rows: list[UsageRow]
    """By date, username and GPU type; there is none where nothing was used."""

    @classmethod
    def of(cls, period: Period, used: Sequence[DayUsage]) -> "Usage":
        """Rows of a period; hours to four digits, which is less than a second."""
        rows = [
            UsageRow(
                date=one.day,
                username=one.username,
                gpu_type=one.gpu_type,
                gpu_hours=round(one.gpu_time / timedelta(hours=1), 4),
                user_id=one.user_id,
            )
            for one in used
        ]
        return cls(first=period.first, last=period.last, rows=rows)
