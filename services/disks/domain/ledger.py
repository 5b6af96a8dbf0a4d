"""Compare what AWS holds with what the tables say: pure, so that the sweep can be shown to delete nothing else."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from uuid import UUID

import msgspec

from services.disks.domain.aws_objects import TAG_DISK, TAG_NAME, TAG_OPERATION, AwsSnapshot, AwsVolume, SnapshotOrder
from services.disks.domain.disk import DiskState
from services.disks.domain.snapshot import SnapshotState

_VOLUME_OF_A_COPY = "vol-ffffffff"
_BEGINNING_OF_A_COPY = "[Copied "


class LedgerDisk(msgspec.Struct, frozen=True, kw_only=True):
    id: UUID
    user_id: int
    name: str
    state: DiskState
    volume_id: str | None
    name_tag: str | None
    updated_at: datetime


class LedgerSnapshot(msgspec.Struct, frozen=True, kw_only=True):
    id: UUID
    disk_id: UUID
    snapshot_id: str | None
    status: SnapshotState
    name_tag: str | None
    updated_at: datetime


class Adoption(msgspec.Struct, frozen=True, kw_only=True):
    """A snapshot that we made of one of our volumes, and that the tables have forgotten."""

    disk_id: UUID
    operation_id: UUID
    snapshot: AwsSnapshot


class Findings(msgspec.Struct, kw_only=True):
    """What a sweep found. Ids are AWS's."""

    orphan_volumes: list[str] = []
    """With our tags, but of no disk of ours: reported, never deleted."""
    orphan_snapshots: list[str] = []
    leftover_volumes: list[str] = []
    """Our own row says that it is to be gone."""
    leftover_snapshots: list[str] = []
    missing_volumes: list[str] = []
    """Our own row says that it is there."""
    missing_snapshots: list[str] = []
    adoptions: list[Adoption] = []
    names: dict[str, str | None] = {}
    """Name tags that are not what was last written, by id of the volume or snapshot."""
    unmarked_volumes: list[str] = []
    """Ours, without the marks by which the CSI driver is let at them."""

    def aws_ids(self) -> dict[str, list[str]]:
        """By kind, in the order of the fields."""
        kinds = {name: list(getattr(self, name)) for name in self.__struct_fields__ if name != "adoptions"}
        return {**kinds, "adoptions": [adoption.snapshot.snapshot_id for adoption in self.adoptions]}


FOR_PEOPLE = frozenset({"orphan_volumes", "orphan_snapshots", "missing_volumes", "missing_snapshots"})
"""Kinds of findings about which the sweep never does anything."""


class Ledger:
    """What the tables say.

    Args:
        disks: Every disk, gone ones included.
        snapshots: Every snapshot, gone ones included.
        settled_before: A row that changed later says nothing about what AWS shows: that may be older.
        marks: Tags that each of our volumes should have beside those that say whose it is.
    """

    def __init__(
        self,
        disks: Iterable[LedgerDisk],
        snapshots: Iterable[LedgerSnapshot],
        settled_before: datetime,
        marks: Mapping[str, str],
    ) -> None:
        self._marks = marks
        self._disks: Mapping[str, LedgerDisk] = {str(disk.id): disk for disk in disks}
        self._snapshots: Mapping[str, LedgerSnapshot] = {str(snapshot.id): snapshot for snapshot in snapshots}
        self._settled_before = settled_before

    def compare(self, volumes: Sequence[AwsVolume], snapshots: Sequence[AwsSnapshot]) -> Findings:
        """What differs."""
        findings = Findings()
        for volume in volumes:
            if volume.living:
                self._judge_volume(volume, findings)
        for snapshot in snapshots:
            self._judge_snapshot(snapshot, findings)
        self._find_missing({volume.volume_id for volume in volumes if volume.living}, snapshots, findings)
        return findings

    def _judge_volume(self, volume: AwsVolume, findings: Findings) -> None:
        disk = self._disks.get(volume.tags.get(TAG_DISK, ""))
        if disk is None:
            findings.orphan_volumes.append(volume.volume_id)
        elif disk.volume_id == volume.volume_id and disk.state is not DiskState.PURGED:
            _check_name(volume.volume_id, volume.tags, disk.name_tag, findings)
            if not self._marks.items() <= volume.tags.items():
                findings.unmarked_volumes.append(volume.volume_id)
        elif disk.volume_id == volume.volume_id or disk.state is DiskState.FAILED:
            if self._settled(disk):
                findings.leftover_volumes.append(volume.volume_id)
        elif disk.state is not DiskState.CREATING:
            findings.orphan_volumes.append(volume.volume_id)

    def _judge_snapshot(self, snapshot: AwsSnapshot, findings: Findings) -> None:
        row = self._snapshots.get(snapshot.tags.get(TAG_OPERATION, ""))
        if row is None:
            self._judge_forgotten(snapshot, findings)
        elif row.snapshot_id == snapshot.snapshot_id or (row.snapshot_id is None and self._made_by_us(snapshot)):
            self._judge_own(snapshot, row, findings)
        elif self._made_by_us(snapshot):
            findings.orphan_snapshots.append(snapshot.snapshot_id)
        # else somebody's copy, with our tags: none of our business

    def _judge_own(self, snapshot: AwsSnapshot, row: LedgerSnapshot, findings: Findings) -> None:
        if row.status in {SnapshotState.DELETED, SnapshotState.FAILED}:
            if self._settled(row):
                findings.leftover_snapshots.append(snapshot.snapshot_id)
        elif row.snapshot_id is not None:
            _check_name(snapshot.snapshot_id, snapshot.tags, row.name_tag, findings)

    def _judge_forgotten(self, snapshot: AwsSnapshot, findings: Findings) -> None:
        if snapshot.volume_id == _VOLUME_OF_A_COPY or snapshot.description.startswith(_BEGINNING_OF_A_COPY):
            return
        disk = self._disks.get(snapshot.tags.get(TAG_DISK, ""))
        if disk is None or disk.state is not DiskState.AVAILABLE or not self._made_by_us(snapshot):
            findings.orphan_snapshots.append(snapshot.snapshot_id)
        elif snapshot.state == "completed":
            operation_id = UUID(snapshot.tags[TAG_OPERATION])
            findings.adoptions.append(Adoption(disk_id=disk.id, operation_id=operation_id, snapshot=snapshot))

    def _made_by_us(self, snapshot: AwsSnapshot) -> bool:
        disk = self._disks.get(snapshot.tags.get(TAG_DISK, ""))
        operation_id = _uuid(snapshot.tags.get(TAG_OPERATION, ""))
        if disk is None or disk.volume_id is None or operation_id is None:
            return False
        order = SnapshotOrder(
            operation_id=operation_id,
            disk_id=disk.id,
            user_id=disk.user_id,
            disk_name=disk.name,
            volume_id=disk.volume_id,
        )
        return (snapshot.volume_id, snapshot.description) == (order.volume_id, order.description)

    def _find_missing(self, volumes: set[str], snapshots: Sequence[AwsSnapshot], findings: Findings) -> None:
        for disk in self._disks.values():
            if disk.state is DiskState.AVAILABLE and disk.volume_id not in volumes and self._settled(disk):
                findings.missing_volumes.append(disk.volume_id or "")
        there = {snapshot.snapshot_id for snapshot in snapshots}
        for row in self._snapshots.values():
            if row.status is SnapshotState.COMPLETED and row.snapshot_id not in there and self._settled(row):
                findings.missing_snapshots.append(row.snapshot_id or "")

    def _settled(self, row: LedgerDisk | LedgerSnapshot) -> bool:
        return row.updated_at < self._settled_before


def _check_name(aws_id: str, tags: Mapping[str, str], written: str | None, findings: Findings) -> None:
    if tags.get(TAG_NAME) != written:
        findings.names[aws_id] = tags.get(TAG_NAME)


def _uuid(text: str) -> UUID | None:
    try:
        return UUID(text)
    except ValueError:
        return None
