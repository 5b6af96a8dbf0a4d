"""Answers, in the contract's key order; fields that were added come after."""

from collections.abc import Sequence
from datetime import date, datetime, timedelta
from uuid import UUID

import msgspec

from services.capacity.domain.availability import Snapshot, TypeAvailability, count_availability, count_cluster
from services.capacity.domain.choices import Choice
from services.capacity.domain.fleet import Node
from services.capacity.domain.gpu_states import GpuState, ShownGpu
from services.capacity.domain.queue_entry import ShownEntry, ShownQueue
from services.capacity.domain.usage import DayUsage, Period
from shared.contracts.auth import Identity
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
        """Rows of a period; hours to four digits, which is less than a second: what is less than that is none."""
        rows = [
            UsageRow(
                date=one.day,
                username=one.username,
                gpu_type=one.gpu_type,
                gpu_hours=hours,
                user_id=one.user_id,
            )
            for one in used
            if (hours := round(one.gpu_time / timedelta(hours=1), 4)) > 0
        ]
        return cls(first=period.first, last=period.last, rows=rows)


class GpuEntry(msgspec.Struct, frozen=True, kw_only=True):
    state: GpuState
    job_id: UUID | None
    """Of one's own jobs, and for operators of all."""

    @classmethod
    def of(cls, gpu: ShownGpu) -> "GpuEntry":
        """Entry of a GPU."""
        return cls(state=gpu.state, job_id=gpu.job_id)


class FleetNode(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    gpu_type: str
    zone: str | None
    ready: bool
    schedulable: bool
    """False: no new job starts there, as on a cordoned node."""
    total: int
    """Allocatable GPUs."""
    gpus: list[GpuEntry]
    """One for each device. On a node that is not ready or not schedulable nothing starts on the free ones either."""


class Fleet(Answer, frozen=True, kw_only=True):
    nodes: list[FleetNode]
    timestamp: datetime
    as_of: datetime | None
    """Time of the newest information that is shown here; null until the cluster has answered once."""

    @classmethod
    def of(
        cls, shown: Sequence[tuple[Node, Sequence[ShownGpu]]], as_of: datetime | None, timestamp: datetime
    ) -> "Fleet":
        """Entries of all nodes."""
        nodes = [
            FleetNode(
                name=node.name,
                gpu_type=node.gpu_type,
                zone=node.zone,
                ready=node.ready,
                schedulable=node.schedulable,
                total=node.gpus,
                gpus=[GpuEntry.of(gpu) for gpu in gpus],
            )
            for node, gpus in shown
        ]
        return cls(nodes=nodes, timestamp=timestamp, as_of=as_of)


class QueuedJob(Answer, frozen=True, kw_only=True):
    position: int
    """1 is the head."""
    own: bool
    job_id: UUID | None
    """Of one's own jobs, and for operators of all."""
    gpu_count: int
    duration_hours: float
    priority: int
    submitted_at: datetime
    waits_for_disk: bool
    """It keeps its position, and holds up nobody."""
    estimated_start_time: datetime | None
    """The median, as it was announced last: one in two jobs starts before it. Null when it cannot be estimated."""
    estimated_start_time_p90: datetime | None
    """Nine in ten jobs start before it. Null when it cannot be estimated."""

    @classmethod
    def of(cls, entry: ShownEntry, position: int, asker: Identity) -> "QueuedJob":
        """Entry of a job."""
        own = entry.user_id == asker.user_id
        return cls(
            position=position,
            own=own,
            job_id=entry.job_id if own or asker.is_operator else None,
            gpu_count=entry.gpu_count,
            duration_hours=round(entry.duration_seconds / 3600, 4),
            priority=entry.priority,
            submitted_at=entry.submitted_at,
            waits_for_disk=not entry.ready,
            estimated_start_time=entry.estimated_start_at,
            estimated_start_time_p90=entry.estimated_p90_at,
        )


class TypeQueue(msgspec.Struct, frozen=True, kw_only=True):
    gpu_type: str
    jobs: int
    """All that wait."""
    gpus: int
    """That they wait for."""
    entries: list[QueuedJob]
    """The first 300."""


class Queue(Answer, frozen=True, kw_only=True):
    queues: list[TypeQueue]
    """Of types for which jobs wait."""
    timestamp: datetime

    @classmethod
    def of(cls, queues: Sequence[ShownQueue], asker: Identity, timestamp: datetime) -> "Queue":
        """The queues as the asker sees them."""
        told = [
            TypeQueue(
                gpu_type=queue.gpu_type,
                jobs=queue.jobs,
                gpus=queue.gpus,
                entries=[QueuedJob.of(entry, place, asker) for place, entry in enumerate(queue.entries, start=1)],
            )
            for queue in queues
        ]
        return cls(queues=told, timestamp=timestamp)


class ChoiceEntry(Answer, frozen=True, kw_only=True):
    instance_type: str
    gpu_type: str
    gpu_count: int
    starts_now: bool
    estimated_start_time: datetime | None
    """The median. Null when it starts now, or when it cannot be estimated."""
    estimated_start_time_p90: datetime | None
    """Nine in ten jobs start before it. Null likewise."""
    reason: str | None
    """What it would wait for; null when it starts now."""

    @classmethod
    def of(cls, choice: Choice) -> "ChoiceEntry":
        """Entry of a choice."""
        return cls(
            instance_type=choice.instance_type,
            gpu_type=choice.gpu_type,
            gpu_count=choice.gpu_count,
            starts_now=choice.starts_now,
            estimated_start_time=choice.estimate.p50 if choice.estimate else None,
            estimated_start_time_p90=choice.estimate.p90 if choice.estimate else None,
            reason=choice.reason,
        )


class Estimates(Answer, frozen=True, kw_only=True):
    duration_hours: float
    choices: list[ChoiceEntry]
    """Sizes of jobs that a node of the cluster has GPUs for."""
    timestamp: datetime

    @classmethod
    def of(cls, choices: Sequence[Choice], duration_hours: float, timestamp: datetime) -> "Estimates":
        """Entries of all choices."""
        return cls(duration_hours=duration_hours, choices=[ChoiceEntry.of(one) for one in choices], timestamp=timestamp)
