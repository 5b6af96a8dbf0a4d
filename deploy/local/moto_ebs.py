"""What EBS does and moto does not: snapshots take a while and hold files, long lists come in pages, a copy shows."""

from datetime import UTC
from typing import Any

from moto.core.responses import ActionResult
from moto.core.utils import utcnow
from moto.ec2.models.elastic_block_store import EBSBackend, Snapshot
from moto.ec2.responses.elastic_block_store import ElasticBlockStore

from deploy.local.disk_contents import DiskContents

_VOLUME_OF_A_COPY = "vol-ffffffff"
"""'Snapshots created by CopySnapshot have an arbitrary volume ID that should not be used for any purpose.'"""


def teach_ebs(*, snapshot_seconds: float, contents: DiskContents) -> None:
    """Change moto's classes, for the whole process.

    Args:
        snapshot_seconds: How long a snapshot is pending.
        contents: The volumes' files and the snapshots'.
    """
    _teach_progress(snapshot_seconds)
    _teach_copies()
    _teach_contents(contents)
    _teach_pages("describe_snapshots", "Snapshots")
    _teach_pages("describe_volumes", "Volumes")


def _teach_progress(snapshot_seconds: float) -> None:
    def share(snapshot: Any) -> float:
        age = (utcnow() - snapshot.start_time).total_seconds()
        return min(1.0, age / snapshot_seconds) if snapshot_seconds else 1.0

    def status(snapshot: Any) -> str:
        return "completed" if share(snapshot) == 1.0 else "pending"

    def ignore(_: Any, __: str) -> None:
        """Moto sets "completed" at once; time says otherwise."""

    _replace(Snapshot, "status", property(status, ignore))
    _replace(Snapshot, "progress", property(lambda snapshot: f"{round(100 * share(snapshot))}%"))


def _teach_copies() -> None:
    copy = EBSBackend.copy_snapshot

    def copy_snapshot(backend: Any, source_snapshot_id: str, source_region: str, *rest: Any, **named: Any) -> Any:
        snapshot: Any = copy(backend, source_snapshot_id, source_region, *rest, **named)
        snapshot.copied = True
        snapshot.description = snapshot.description or f"[Copied {source_snapshot_id} from {source_region}]"
        return snapshot

    def volume_id(snapshot: Any) -> str:
        return _VOLUME_OF_A_COPY if getattr(snapshot, "copied", False) else str(snapshot.volume.id)

    _replace(EBSBackend, "copy_snapshot", copy_snapshot)
    _replace(Snapshot, "volume_id", property(volume_id))


def _teach_contents(contents: DiskContents) -> None:
    """A call that cannot copy or link the files fails, and what it would have made is not there."""
    create_volume, create_snapshot = EBSBackend.create_volume, EBSBackend.create_snapshot
    copy_snapshot = EBSBackend.copy_snapshot

    def volume_with_files(backend: Any, *given: Any, **named: Any) -> Any:
        volume = create_volume(backend, *given, **named)
        if volume.snapshot_id:
            _copy(contents, backend.volumes, volume.snapshot_id, volume.id)
        return volume

    def snapshot_with_files(backend: Any, volume_id: str, *given: Any, **named: Any) -> Any:
        before = [one for one in backend.snapshots.values() if one.volume_id == volume_id]
        last = max(before, key=lambda one: one.start_time, default=None)
        snapshot = create_snapshot(backend, volume_id, *given, **named)
        share = {} if last is None else {"earlier": last.id, "taken": last.start_time.replace(tzinfo=UTC)}
        _copy(contents, backend.snapshots, volume_id, snapshot.id, **share)
        return snapshot

    def copy_with_files(backend: Any, source_snapshot_id: str, *given: Any, **named: Any) -> Any:
        snapshot = copy_snapshot(backend, source_snapshot_id, *given, **named)
        _copy(contents, backend.snapshots, source_snapshot_id, snapshot.id, earlier=source_snapshot_id)
        return snapshot

    _replace(EBSBackend, "create_volume", volume_with_files)
    _replace(EBSBackend, "create_snapshot", snapshot_with_files)
    _replace(EBSBackend, "copy_snapshot", copy_with_files)
    for name in ("delete_volume", "delete_snapshot"):
        _replace(EBSBackend, name, _deleting(getattr(EBSBackend, name), contents))


def _copy(contents: DiskContents, made: dict[str, Any], source: str, target: str, **share: Any) -> None:
    try:
        contents.copy(source, target, **share)
    except OSError:
        del made[target]
        raise


def _deleting(delete: Any, contents: DiskContents) -> Any:
    def delete_with_files(backend: Any, name: str) -> Any:
        deleted = delete(backend, name)
        contents.delete(name)
        return deleted

    return delete_with_files


def _teach_pages(name: str, key: str) -> None:
    describe = getattr(ElasticBlockStore, name)

    def paged(response: Any) -> Any:
        items = describe(response).result[key]
        size = int(response._get_param("MaxResults") or 0)  # noqa: SLF001 - moto's own way to read a parameter
        if not size:
            return ActionResult({key: items})
        start = int(response._get_param("NextToken") or 0)  # noqa: SLF001 - as above
        page = {key: items[start : start + size]}
        return ActionResult({**page, "NextToken": str(start + size)} if len(items) > start + size else page)

    _replace(ElasticBlockStore, name, paged)


def _replace(owner: type, name: str, member: Any) -> None:
    setattr(owner, name, member)
