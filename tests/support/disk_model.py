"""What disks are after any sequence of requests, of jobs' news and of time: the contract and behaviour.md, without I/O.

Requests take effect or raise Refusal. What the service does by itself (volumes, restore points, purges) takes effect
here when the caller has seen it done: `made`, `backed_up`, `purged`.
"""

from collections.abc import Collection
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from uuid import UUID

from services.disks.domain.changes import Limits
from services.disks.domain.snapshot import Retention

DEFAULT_SIZE_GB = 100


class Refusal(Exception):
    """What a request is answered when it has no effect.

    Args:
        status: Of HTTP.
        words: That the answer's text holds.
    """

    def __init__(self, status: int, words: str) -> None:
        super().__init__(f"{status} {words}")
        self.status = status
        self.words = words


@dataclass(eq=False)
class Point:
    """A restore point."""

    id: UUID
    disk: "ModelDisk"
    job_id: UUID | None
    created_at: datetime
    state: str = "pending"
    """pending, completed, or gone: no longer kept."""


@dataclass(eq=False)
class ModelDisk:
    id: UUID
    owner: int
    name: str
    size_gb: int
    created_at: datetime
    source: Point | None = None
    """Restore point that it began with; None: it began empty."""
    state: str = "creating"
    """creating, available, purging, purged."""
    deleted_at: datetime | None = None
    purge_at: datetime | None = None
    last_used: datetime | None = None
    listed_job: UUID | None = None
    """Job whose listing is kept."""
    missed_job: UUID | None = None
    """A later job that ended without one."""
    points: list[Point] = field(default_factory=list)

    @property
    def backing_up(self) -> bool:
        return any(point.state == "pending" for point in self.points)

    def kept(self, *states: str) -> list[Point]:
        """Restore points in these states, newest first."""
        found = [point for point in self.points if point.state in states]
        return sorted(found, key=lambda point: (point.created_at, point.id), reverse=True)


@dataclass(eq=False)
class ModelJob:
    """A job that asked for a disk."""

    id: UUID
    owner: int
    disk: ModelDisk
    expires_at: datetime
    changed_at: datetime
    state: str = "provisional"
    """provisional, confirmed, dropped, released."""

    @property
    def holds(self) -> bool:
        return self.state in {"provisional", "confirmed"}


@dataclass
class DiskModel:
    """All users' disks."""

    limits: Limits
    retention: Retention
    keep_deleted: timedelta
    provisional: timedelta
    disks: list[ModelDisk] = field(default_factory=list)
    jobs: dict[UUID, ModelJob] = field(default_factory=dict)

    # what owners see

    def listed(self, owner: int, *, deleted: bool) -> list[ModelDisk]:
        """A user's disks, newest first."""
        own = [disk for disk in self.disks if disk.owner == owner and disk.state != "purged"]
        shown = [disk for disk in own if deleted or disk.deleted_at is None]
        return sorted(sorted(shown, key=lambda disk: disk.id), key=lambda disk: disk.created_at, reverse=True)

    def find(self, owner: int, name: str) -> ModelDisk:
        """The one that is not deleted, else the one deleted last."""
        named = [disk for disk in self.listed(owner, deleted=True) if disk.name == name]
        if not named:
            raise Refusal(404, "not found")
        return max(named, key=lambda disk: (disk.deleted_at is None, disk.deleted_at or disk.created_at))

    def holder(self, disk: ModelDisk) -> ModelJob | None:
        """The job that has claimed the disk."""
        return next((job for job in self.jobs.values() if job.disk is disk and job.holds), None)

    # requests

    def create(
        self, owner: int, name: str, *, disk_id: UUID, size_gb: int | None, source: UUID | None, now: datetime
    ) -> ModelDisk:
        point = None if source is None else self._own_point(owner, source)
        if point is not None:
            if point.state != "completed":
                raise Refusal(409, "not completed")
            if size_gb is not None and size_gb < point.disk.size_gb:
                raise Refusal(400, "at least")
            size_gb = size_gb or point.disk.size_gb
        if self._alive(owner, name) is not None:
            raise Refusal(409, "already exists")
        disk = ModelDisk(disk_id, owner, name, size_gb or DEFAULT_SIZE_GB, now, source=point)
        self._check_limits(disk)
        self.disks.append(disk)
        return disk

    def delete(self, owner: int, name: str, *, now: datetime) -> ModelDisk:
        disk = self._idle(owner, name)
        disk.deleted_at, disk.purge_at = now, now + self.keep_deleted
        return disk

    def restore(self, owner: int, name: str, *, now: datetime) -> ModelDisk:
        disk = self.find(owner, name)
        if disk.deleted_at is None or disk.purge_at is None:
            others = [other for other in self.listed(owner, deleted=True) if other.name == name]
            waiting = any(other.deleted_at is not None and other.state == "available" for other in others)
            raise Refusal(409, "since" if waiting else "is not deleted")
        if disk.state != "available" or now >= disk.purge_at:
            raise Refusal(410, "its time after deletion is over")
        self._check_limits(disk)
        disk.deleted_at = disk.purge_at = None
        return disk

    def rename(self, owner: int, name: str, new_name: str) -> ModelDisk:
        disk = self._not_deleted(owner, name)
        if self.holder(disk) is not None:
            raise Refusal(409, "in use")
        if self._alive(owner, new_name) is not None:
            raise Refusal(409, "already exists")
        disk.name = new_name
        return disk

    def snapshot(self, owner: int, name: str, *, point_id: UUID, now: datetime) -> Point:
        return self._begin_backup(self._idle(owner, name), point_id, None, now)

    # jobs

    def claim(
        self, owner: int, name: str, *, job_id: UUID, size_gb: int | None, disk_id: UUID, now: datetime
    ) -> ModelDisk:
        """A job asks for a disk, which is made when there is none."""
        disk, made = self._alive(owner, name), False
        if disk is None:
            disk = ModelDisk(disk_id, owner, name, size_gb or DEFAULT_SIZE_GB, now)
            self._check_limits(disk)
            made = True
        if size_gb is not None and size_gb != disk.size_gb:
            raise Refusal(400, "exists with")
        holder, job = self.holder(disk), self.jobs.get(job_id)
        if holder is not None and holder is not job:
            raise Refusal(409, "in use")
        if job is not None and (
            job.owner != owner or job.state == "released" or (job.state == "confirmed" and job.disk is not disk)
        ):
            raise Refusal(409, "cannot claim")
        if made:
            self.disks.append(disk)
        if job is None or job.state != "confirmed":
            self.jobs[job_id] = ModelJob(job_id, owner, disk, expires_at=now + self.provisional, changed_at=now)
        return disk

    def submitted(self, job_id: UUID, *, now: datetime) -> bool:
        """Whether the job has the disk that it claimed last."""
        job = self.jobs[job_id]
        if job.state == "dropped" and (self.holder(job.disk) is not None or job.disk.deleted_at is not None):
            return False
        if job.state in {"provisional", "dropped"}:
            job.state, job.changed_at = "confirmed", now
        return job.state == "confirmed"

    def ended(self, job_id: UUID, *, used: bool, point_id: UUID, now: datetime) -> Point | None:
        """The job is over; the restore point that is taken then."""
        job = self.jobs.get(job_id)
        if job is None or job.state == "released":
            return None
        held, job.state, job.changed_at = job.holds, "released", now
        if not held:
            return None
        job.disk.last_used = now
        if not used or job.disk.state != "available":
            return None
        if job.disk.listed_job != job_id:
            job.disk.missed_job = job_id
        return self._begin_backup(job.disk, point_id, job_id, now)

    def told_content(self, job_id: UUID, disk: ModelDisk) -> bool:
        """A listing of the disk comes from a job; whether it is kept."""
        holder = self.holder(disk)
        if holder is None or holder.id != job_id:
            return False
        disk.listed_job, disk.missed_job = job_id, None
        return True

    # time

    def drop_expired(self, now: datetime) -> None:
        for job in self.jobs.values():
            if job.state == "provisional" and job.expires_at <= now:
                job.state, job.changed_at = "dropped", now

    def begin_purges(self, now: datetime) -> None:
        for disk in self.disks:
            due = disk.state == "available" and disk.purge_at is not None and disk.purge_at <= now
            if due and not disk.backing_up and not any(self._is_source(point) for point in disk.points):
                disk.state = "purging"
                for point in disk.points:
                    point.state = "gone"

    def prune_all(self, now: datetime) -> None:
        for disk in self.listed_everywhere():
            if disk.state == "available" and disk.deleted_at is None:
                self._let_go(self.superfluous(disk, now))

    def forget(self, before: datetime) -> None:
        """What was closed before is not remembered."""
        closed = [job for job in self.jobs.values() if not job.holds and job.changed_at < before]
        for job in closed:
            del self.jobs[job.id]

    # what the service was seen to have done

    def made(self, disk: ModelDisk) -> None:
        disk.state = "available"

    def backed_up(self, point: Point, *, now: datetime, gone: Collection[UUID], doubtful: Collection[Point]) -> None:
        """The restore point is complete, and others need not be kept.

        Args:
            point: It.
            now: When it was completed.
            gone: Restore points that the service lets go or has let go.
            doubtful: Restore points that another disk began with, which was completed at about the same time.
        """
        point.state = "completed"
        must = self.superfluous(point.disk, now)
        may = [other for other in doubtful if other in self._unneeded(point.disk, now)]
        self._let_go([other for other in must if other not in may])
        self._let_go([other for other in may if other.id in gone])

    def purged(self, disk: ModelDisk) -> None:
        disk.state = "purged"

    def listed_everywhere(self) -> list[ModelDisk]:
        return [disk for disk in self.disks if disk.state != "purged"]

    # rules

    def superfluous(self, disk: ModelDisk, now: datetime) -> list[Point]:
        """Restore points that are not kept: neither new, nor the week's newest, nor needed by a disk that is made."""
        return [point for point in self._unneeded(disk, now) if not self._is_source(point)]

    def _unneeded(self, disk: ModelDisk, now: datetime) -> list[Point]:
        newest_first = disk.kept("completed")
        kept = set(newest_first[: max(1, self.retention.newest)])
        weeks = {tuple((now - timedelta(weeks=back)).isocalendar())[:2] for back in range(self.retention.weeks)}
        for week in weeks:
            of_week = [point for point in newest_first if tuple(point.created_at.isocalendar())[:2] == week]
            kept |= set(of_week[:1])
        return [point for point in newest_first if point not in kept]

    def _is_source(self, point: Point) -> bool:
        return any(disk.source is point and disk.state == "creating" for disk in self.disks)

    @staticmethod
    def _let_go(points: list[Point]) -> None:
        for point in points:
            point.state = "gone"

    @staticmethod
    def _begin_backup(disk: ModelDisk, point_id: UUID, job_id: UUID | None, now: datetime) -> Point:
        point = Point(point_id, disk, job_id, now)
        disk.points.append(point)
        return point

    def _own_point(self, owner: int, point_id: UUID) -> Point:
        for disk in self.listed(owner, deleted=True):
            for point in disk.points if disk.state == "available" else []:
                if point.id == point_id and point.state != "gone":
                    return point
        raise Refusal(404, "not found")

    def _alive(self, owner: int, name: str) -> ModelDisk | None:
        return next((disk for disk in self.listed(owner, deleted=False) if disk.name == name), None)

    def _not_deleted(self, owner: int, name: str) -> ModelDisk:
        disk = self.find(owner, name)
        if disk.deleted_at is not None:
            raise Refusal(410, "marked for deletion")
        return disk

    def _idle(self, owner: int, name: str) -> ModelDisk:
        disk = self._not_deleted(owner, name)
        if self.holder(disk) is not None:
            raise Refusal(409, "in use")
        if disk.state == "creating":
            raise Refusal(409, "still being created")
        if disk.backing_up:
            raise Refusal(409, "being backed up")
        return disk

    def _check_limits(self, one_more: ModelDisk) -> None:
        living = self.listed(one_more.owner, deleted=False)
        used = sum(disk.size_gb for disk in living)
        if len(living) + 1 > self.limits.disks or used + one_more.size_gb > self.limits.gb:
            raise Refusal(409, "limit")
