"""What disks are, by the contract alone: names, claims, snapshots, deletion, time. Pure, and knows no service.

Users and jobs ask; `judge_…` says what they are to be answered, and the method beside it makes the change once the
answer has come. What AWS does in its own time is not foretold: the model is told when an operation has ended, checks
that it may have, and knows what follows.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from typing import Any
from uuid import UUID

CREATING, AVAILABLE, FAILED, PURGING, PURGED = "creating", "available", "failed", "purging", "purged"
PENDING, COMPLETED, LOST, GONE = "pending", "completed", "lost", "gone"
"""Of snapshots, with FAILED. LOST: in AWS, but its row is not; GONE: not to be seen any more."""
PROVISIONAL, CONFIRMED, DROPPED, RELEASED = "provisional", "confirmed", "dropped", "released"
OPEN = "open"

HISTORY = timedelta(days=90)
DEFAULT_SIZE_GB = 100
SIZES_GB = range(10, 16385)
JOB_SIZES_GB = range(10, 10001)
_NAME_CHARACTERS = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-")
_LONGEST_NAME = 63


@dataclass(frozen=True, kw_only=True)
class Rules:
    """The settings that matter."""

    disks: int
    gb: int
    newest: int
    weeks: int
    retention: timedelta
    """From deletion to purge."""
    claim: timedelta
    """How long a claim waits for its job's submission."""


@dataclass(eq=False)
class Disk:
    id: UUID
    user: int
    name: str
    size_gb: int
    created_at: datetime
    source: "Point | None" = None
    state: str = CREATING
    last_used: datetime | None = None
    deleted_at: datetime | None = None
    purge_at: datetime | None = None
    points: list["Point"] = field(default_factory=list)
    listing: Any = None
    """What was on it, as the job told."""
    listed_by: UUID | None = None
    listed_at: datetime | None = None
    missed_by: UUID | None = None

    @property
    def alive(self) -> bool:
        """It has its name."""
        return self.deleted_at is None and self.state in {CREATING, AVAILABLE}

    @property
    def known(self) -> bool:
        """Its owner can see it."""
        return self.state not in {FAILED, PURGED}

    @property
    def delete_date(self) -> date | None:
        return None if self.purge_at is None else self.purge_at.date()

    @property
    def backing_up(self) -> bool:
        return any(point.state == PENDING for point in self.points)

    @property
    def kept(self) -> list["Point"]:
        return [point for point in self.points if point.state == COMPLETED]

    @property
    def ready(self) -> bool:
        """A job can use it now."""
        return self.alive and self.state == AVAILABLE and not self.backing_up


@dataclass(eq=False)
class Point:
    """A snapshot."""

    id: UUID
    disk: Disk
    job: UUID | None
    size_gb: int
    created_at: datetime
    state: str = PENDING
    ended_at: datetime | None = None

    @property
    def shown(self) -> bool:
        return self.state in {PENDING, COMPLETED, FAILED}


@dataclass(eq=False)
class Operation:
    id: UUID
    disk: Disk
    name: str
    action: str
    created_at: datetime
    new_name: str | None = None
    status: str = OPEN
    ended_at: datetime | None = None


@dataclass(eq=False)
class Job:
    id: UUID
    user: int
    state: str | None = None
    """Of its claim; None: it has none, or it is forgotten."""
    disk: Disk | None = None
    expires_at: datetime | None = None
    changed_at: datetime | None = None

    @property
    def holds(self) -> bool:
        return self.state in {PROVISIONAL, CONFIRMED}


class Model:
    """Every user's disks.

    Args:
        rules: The settings.
        now: The time; moved by whoever walks.
    """

    def __init__(self, rules: Rules, now: datetime) -> None:
        self.rules = rules
        self.now = now
        self.disks: list[Disk] = []
        self.operations: dict[UUID, Operation] = {}
        self.jobs: list[Job] = []

    # ------------------------------------------------------------ what is there

    def named(self, user: int, name: str) -> Disk | None:
        """The disk that has the name, else the one of it deleted last."""
        found = [disk for disk in self.disks if disk.user == user and disk.name == name and disk.known]
        return max(found, key=lambda disk: (disk.alive, disk.deleted_at or disk.created_at), default=None)

    def listed(self, user: int, *, include_deleted: bool) -> list[Disk]:
        """Newest first."""
        found = [d for d in self.disks if d.user == user and d.known and (include_deleted or d.deleted_at is None)]
        return sorted(found, key=lambda disk: disk.created_at, reverse=True)

    def holder(self, disk: Disk) -> Job | None:
        """The job that has the disk."""
        return next((job for job in self.jobs if job.holds and job.disk is disk), None)

    def info(self, disk: Disk) -> dict[str, Any]:
        """What its owner is shown of it."""
        holder = self.holder(disk)
        return {
            "disk_name": disk.name,
            "size_gb": disk.size_gb,
            "created_at": disk.created_at,
            "last_used": disk.last_used,
            "in_use": holder is not None,
            "reservation_id": None if holder is None else str(holder.id),
            "is_backing_up": disk.backing_up,
            "is_deleted": disk.deleted_at is not None,
            "snapshot_count": len(disk.kept),
            "delete_date": _day(disk.delete_date),
            "disk_id": str(disk.id),
            "status": disk.state,
        }

    def points(self, disk: Disk) -> list[dict[str, Any]]:
        """What its owner is shown of its snapshots, newest first."""
        shown = sorted((p for p in disk.points if p.shown), key=lambda point: point.id)
        shown.sort(key=lambda point: point.created_at, reverse=True)
        return [
            {
                "snapshot_id": str(point.id),
                "size_gb": point.size_gb,
                "created_at": point.created_at,
                "reservation_id": None if point.job is None else str(point.job),
                "state": point.state,
            }
            for point in shown
        ]

    def content(self, disk: Disk) -> dict[str, Any]:
        """What its owner is told to be on it."""
        return {
            "disk_name": disk.name,
            "s3_path": None,
            "snapshot_date": disk.listed_at,
            "reservation_id": None if disk.listed_by is None else str(disk.listed_by),
            "listed_at": disk.listed_at,
            "listed_after_job": None if disk.listed_by is None else str(disk.listed_by),
            "missed_after_job": None if disk.missed_by is None else str(disk.missed_by),
            "message": self._no_listing(disk),
            "size_bytes": None if disk.listing is None else disk.listing["size_bytes"],
            "entries": [] if disk.listing is None else disk.listing["entries"],
        }

    def _no_listing(self, disk: Disk) -> str | None:
        holder = self.holder(disk)
        if disk.listing is not None:
            return None
        if disk.missed_by is not None:
            return f"No listing could be taken when job {disk.missed_by} ended"
        if holder is not None:
            return f"Job {holder.id} is the first to use this disk: what is on it is listed when the job ends"
        return "No job has used this disk yet"

    def operation(self, user: int, name: str, operation_id: UUID) -> dict[str, Any] | None:
        """What is said of an operation; None: nothing is known of it. By every name that the disk has had."""
        operation = self.operations.get(operation_id)
        if operation is None or operation.disk.user != user or name not in self.names(operation.disk):
            return None
        disk = operation.disk
        return {
            "operation_id": str(operation.id),
            "disk_name": operation.name,
            "action": operation.action,
            "completed": operation.status != OPEN,
            "is_deleted": disk.deleted_at is not None,
            "delete_date": _day(disk.delete_date),
            "disk_id": str(disk.id),
        }

    def names(self, disk: Disk) -> set[str]:
        """That it has or had, as far as is remembered."""
        names = {disk.name}
        for operation in self.operations.values():
            if operation.disk is disk:
                names |= {operation.name, operation.new_name or operation.name}
        return names

    def open_operations(self) -> list[Operation]:
        return [operation for operation in self.operations.values() if operation.status == OPEN]

    def find_point(self, point_id: UUID) -> Point | None:
        return next((point for disk in self.disks for point in disk.points if point.id == point_id), None)

    def missing_name(self, name: str) -> bool:
        """It is no name at all."""
        return not 1 <= len(name) <= _LONGEST_NAME or not set(name) <= _NAME_CHARACTERS

    # ------------------------------------------------------------ what users ask

    def judge_create(self, user: int, name: str, size_gb: int | None, source: UUID | None) -> tuple[int, int]:
        """Status, and the size of the disk that it makes."""
        size = DEFAULT_SIZE_GB if size_gb is None else size_gb
        if self.missing_name(name) or size not in SIZES_GB:
            return 400, 0
        if source is not None:
            point = self.find_point(source)
            if point is None or not point.shown or point.disk.user != user or point.disk.state != AVAILABLE:
                return 404, 0
            if point.state != COMPLETED:
                return 409, 0
            if size_gb is not None and size_gb < point.size_gb:
                return 400, 0
            size = size_gb or point.size_gb
        if self._taken(user, name) or self._too_much(user, size):
            return 409, 0
        return 200, size

    def create(
        self, *, disk_id: UUID, operation_id: UUID, user: int, name: str, size_gb: int, source: UUID | None = None
    ) -> Disk:
        point = None if source is None else self.find_point(source)
        disk = Disk(disk_id, user, name, size_gb, self.now, source=point)
        self.disks.append(disk)
        self._note(Operation(operation_id, disk, name, "create", self.now))
        return disk

    def judge_idle(self, user: int, name: str) -> int:
        """Of what wants a disk that nobody uses: its deletion, a snapshot."""
        disk = self.named(user, name)
        if disk is None:
            return 404
        if disk.deleted_at is not None:
            return 410
        return 409 if self.holder(disk) or disk.state == CREATING or disk.backing_up else 200

    def delete(self, user: int, name: str, operation_id: UUID) -> Disk:
        disk = self._named(user, name)
        disk.deleted_at, disk.purge_at = self.now, self.now + self.rules.retention
        self._note(Operation(operation_id, disk, name, "delete", self.now), ended=True)
        return disk

    def judge_restore(self, user: int, name: str) -> int:
        disk = self.named(user, name)
        if disk is None:
            return 404
        if disk.deleted_at is None:
            return 409
        if disk.state == PURGING or disk.purge_at is None or self.now >= disk.purge_at:
            return 410
        return 409 if self._too_much(user, disk.size_gb) else 200

    def name_is_taken_since(self, user: int, name: str) -> bool:
        """A deleted disk that could come back may not: another has its name."""
        same = [disk for disk in self.disks if disk.user == user and disk.name == name]
        deleted = any(disk.state == AVAILABLE and disk.deleted_at is not None for disk in same)
        return deleted and any(disk.alive for disk in same)

    def restore(self, user: int, name: str, operation_id: UUID) -> Disk:
        disk = self._named(user, name)
        disk.deleted_at = disk.purge_at = None
        self._note(Operation(operation_id, disk, name, "restore", self.now), ended=True)
        return disk

    def judge_rename(self, user: int, name: str, new_name: str) -> int:
        if self.missing_name(new_name):
            return 400
        disk = self.named(user, name)
        if disk is None:
            return 404
        if disk.deleted_at is not None:
            return 410
        return 409 if self.holder(disk) or self._taken(user, new_name) else 200

    def rename(self, user: int, name: str, new_name: str, operation_id: UUID) -> Disk:
        disk = self._named(user, name)
        # a newer name does away with what an older one had left to do
        for older in self.open_operations():
            if older.disk is disk and older.action == "rename":
                self._end(older, COMPLETED)
        disk.name = new_name
        self._note(Operation(operation_id, disk, name, "rename", self.now, new_name=new_name))
        return disk

    def snapshot(self, disk: Disk, point_id: UUID, job: UUID | None = None) -> None:
        """Asked for by its owner, or by the end of a job."""
        disk.points.append(Point(point_id, disk, job, disk.size_gb, self.now))
        self._note(Operation(point_id, disk, disk.name, "snapshot", self.now))

    # ------------------------------------------------------------ what jobs do

    def judge_claim(self, job: Job, user: int, name: str, size_gb: int | None) -> tuple[str, bool]:
        """What is replied (claimed, invalid, conflict), and whether a disk is made for it."""
        if self.missing_name(name) or (size_gb is not None and size_gb not in JOB_SIZES_GB):
            return "invalid", False
        disk = next((d for d in self.disks if d.user == user and d.name == name and d.alive), None)
        if disk is None and self._too_much(user, size_gb or DEFAULT_SIZE_GB):
            return "conflict", False
        if disk is not None and size_gb is not None and size_gb != disk.size_gb:
            return "invalid", False
        if disk is not None and job.holds and job.disk is disk and job.user == user:
            return "claimed", False
        holder = None if disk is None else self.holder(disk)
        if holder is not None or job.state in {CONFIRMED, RELEASED} or (job.state is not None and job.user != user):
            return "conflict", False
        return "claimed", disk is None

    def claim(self, job: Job, disk: Disk) -> None:
        """Provisionally; a provisional claim on another disk is given up."""
        if job.state == CONFIRMED:
            return
        job.state, job.disk = PROVISIONAL, disk
        job.expires_at, job.changed_at = self.now + self.rules.claim, self.now

    def submitted(self, job: Job) -> None:
        """Its claim holds; one that was dropped is taken again if its disk is free."""
        if job.disk is None or job.state in {CONFIRMED, RELEASED, None}:
            return
        if job.state == DROPPED and (not job.disk.alive or self.holder(job.disk)):
            return
        job.state, job.changed_at = CONFIRMED, self.now

    def ended(self, job: Job, *, used: bool) -> bool:
        """Whether a snapshot is taken: its disk was in use."""
        held, disk = job.holds, job.disk
        if job.state is None or disk is None:
            return False
        if job.state != RELEASED:
            job.state, job.changed_at = RELEASED, self.now
        if not held:
            return False
        disk.last_used = self.now
        if not used or disk.state != AVAILABLE:
            return False
        if disk.listed_by != job.id:
            disk.missed_by = job.id
        return True

    def tell_content(self, job: Job, disk: Disk, listing: Mapping[str, Any]) -> bool:
        """Whether the listing is kept."""
        if not job.holds or job.disk is not disk:
            return False
        disk.listing, disk.listed_by, disk.listed_at, disk.missed_by = listing, job.id, self.now, None
        return True

    # ------------------------------------------------------------ what time does

    def expire_claims(self) -> None:
        for job in self.jobs:
            if job.state == PROVISIONAL and job.expires_at is not None and job.expires_at <= self.now:
                job.state, job.changed_at = DROPPED, self.now

    def begin_purges(self) -> None:
        for disk in self.disks:
            due = disk.state == AVAILABLE and disk.purge_at is not None and disk.purge_at <= self.now
            if not due or disk.backing_up or any(self._is_source(point) for point in disk.points):
                continue
            disk.state = PURGING
            for point in disk.points:
                if point.state == COMPLETED:
                    point.state = GONE
            for operation in self.open_operations():
                if operation.disk is disk and operation.action == "rename":
                    self._end(operation, COMPLETED)

    def pass_history(self) -> None:
        """Let go of snapshots that a new week made superfluous, and forget what ended 90 days ago."""
        for disk in self.disks:
            if disk.alive and disk.state == AVAILABLE:
                self._prune(disk)
        before = self.now - HISTORY
        self.operations = {
            key: one for key, one in self.operations.items() if one.ended_at is None or one.ended_at >= before
        }
        for disk in self.disks:
            disk.points = [p for p in disk.points if p.state != FAILED or (p.ended_at or before) >= before]
        for job in self.jobs:
            if job.state in {DROPPED, RELEASED} and (job.changed_at or before) < before:
                job.state = job.disk = None

    def superfluous(self, disk: Disk) -> list[Point]:
        """The snapshots that need not be kept: neither of the newest, nor the newest of a week that counts."""
        kept = sorted(disk.kept, key=lambda point: (point.created_at, point.id))
        weeks = {_week(self.now - timedelta(weeks=back)) for back in range(self.rules.weeks)}
        newest_of = {_week(point.created_at): point for point in kept}
        wanted = {point.id for point in kept[-max(1, self.rules.newest) :]}
        wanted |= {point.id for week, point in newest_of.items() if week in weeks}
        return [point for point in kept if point.id not in wanted]

    # ------------------------------------------------------------ what AWS does

    def end_operations(self, ended: Iterable[tuple[Operation, str]]) -> list[Point]:
        """These have ended together, as (operation, outcome).

        Returns:
            Snapshots of which either may be true, that they are kept or that they are gone: a disk was made from
            them in the same moment.
        """
        both = list(ended)
        sources = {one.disk.source for one, _ in both if one.action == "create" and one.disk.source is not None}
        for operation, status in sorted(both, key=lambda one: one[0].action != "create"):
            assert status == COMPLETED or operation.action in {"create", "snapshot"}, (operation.action, status)
            self._end(operation, status)
            if operation.action == "create":
                self._end_creation(operation.disk, status)
            elif operation.action == "snapshot":
                self._end_snapshot(operation, status)
        return [point for point in sources if point.state == GONE]

    def purged(self, disk: Disk) -> None:
        assert disk.state == PURGING
        disk.state = PURGED

    def lose(self, point: Point) -> None:
        """Its row is lost, with its operation: the tables are of before it."""
        point.state = LOST
        self.operations.pop(point.id, None)

    def adopt(self, point: Point, started_at: datetime) -> None:
        """A sweep has found it again."""
        assert point.state == LOST
        assert point.disk.state == AVAILABLE
        point.state, point.job, point.created_at = COMPLETED, None, started_at

    def _end_creation(self, disk: Disk, status: str) -> None:
        disk.state = AVAILABLE if status == COMPLETED else FAILED
        holder = self.holder(disk)
        if disk.state == FAILED and holder is not None:
            holder.state, holder.changed_at = DROPPED, self.now

    def _end_snapshot(self, operation: Operation, status: str) -> None:
        point = self.find_point(operation.id)
        assert point is not None
        point.state, point.ended_at = status, self.now
        if status == COMPLETED:
            self._prune(point.disk)

    def _prune(self, disk: Disk) -> None:
        for point in self.superfluous(disk):
            if not self._is_source(point):
                point.state = GONE

    def _is_source(self, point: Point) -> bool:
        """A disk is just being made from it."""
        return any(disk.source is point and disk.state == CREATING for disk in self.disks)

    def _note(self, operation: Operation, *, ended: bool = False) -> None:
        self.operations[operation.id] = operation
        if ended:
            self._end(operation, COMPLETED)

    def _end(self, operation: Operation, status: str) -> None:
        operation.status, operation.ended_at = status, self.now

    def _named(self, user: int, name: str) -> Disk:
        disk = self.named(user, name)
        assert disk is not None
        return disk

    def _taken(self, user: int, name: str) -> bool:
        return any(disk.user == user and disk.name == name and disk.alive for disk in self.disks)

    def _too_much(self, user: int, size_gb: int) -> bool:
        sizes = [disk.size_gb for disk in self.disks if disk.user == user and disk.alive]
        return len(sizes) + 1 > self.rules.disks or sum(sizes) + size_gb > self.rules.gb


def differences(told: Mapping[str, Any], expected: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Fields that are not as expected, as (told, expected)."""
    return {name: (told.get(name), value) for name, value in expected.items() if not _same(told.get(name, ...), value)}


def _same(told: Any, expected: Any) -> bool:
    if isinstance(expected, datetime) and isinstance(told, str):
        return datetime.fromisoformat(told) == expected.replace(microsecond=0)
    if isinstance(expected, Collection) and not isinstance(expected, str | Mapping):
        return list(told) == list(expected)
    return bool(told == expected)


def _day(day: date | None) -> str | None:
    return None if day is None else day.isoformat()


def _week(moment: datetime) -> tuple[int, int]:
    """Year and week of ISO 8601."""
    year, week, _ = moment.isocalendar()
    return year, week
