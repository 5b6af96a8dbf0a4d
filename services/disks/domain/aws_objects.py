"""What we put into AWS, and how we know it again."""

from collections.abc import Iterable
from datetime import datetime
from uuid import UUID

import msgspec

TAG_DISK = "gpudev:disk-id"
TAG_OPERATION = "gpudev:operation-id"
TAG_USER = "gpudev:user-id"
TAG_NAME = "Name"

_TAG_CSI = "ebs.csi.aws.com/cluster"
_TAG_CSI_NAME = "ebs.csi.aws.com/cluster-name"

_SIGNED_OFF = frozenset({"deleting", "deleted"})


class VolumeOrder(msgspec.Struct, frozen=True, kw_only=True):
    """A volume to be made; the same order always has the same content, or AWS would refuse its repetition."""

    operation_id: UUID
    disk_id: UUID
    user_id: int
    disk_name: str
    """At the time of the request: for people who look at AWS."""
    size_gb: int
    availability_zone: str
    source_snapshot_id: str | None = None
    """AWS's id of what the volume begins with; None: it begins empty."""
    marks: dict[str, str] = {}
    """Further tags: as of `csi_tags`."""

    @property
    def tags(self) -> dict[str, str]:
        """Of the volume."""
        return tags_of(self.disk_id, self.operation_id, self.user_id, self.disk_name) | self.marks


class SnapshotOrder(msgspec.Struct, frozen=True, kw_only=True):
    """A snapshot to be taken."""

    operation_id: UUID
    disk_id: UUID
    user_id: int
    disk_name: str
    volume_id: str

    @property
    def tags(self) -> dict[str, str]:
        """Of the snapshot."""
        return tags_of(self.disk_id, self.operation_id, self.user_id, self.disk_name)

    @property
    def description(self) -> str:
        """Distinguishes the original from copies: whoever copies writes another."""
        return f"GPU Dev {self.operation_id}"


class AwsVolume(msgspec.Struct, frozen=True, kw_only=True):
    volume_id: str
    state: str
    """creating, available, in-use, deleting, deleted, error: EC2's words."""
    availability_zone: str
    created_at: datetime
    tags: dict[str, str] = {}

    @property
    def living(self) -> bool:
        """Whether it is there, and not being deleted."""
        return self.state not in _SIGNED_OFF


class AwsSnapshot(msgspec.Struct, frozen=True, kw_only=True):
    snapshot_id: str
    state: str
    """pending, completed, error, recoverable, recovering: EC2's words."""
    volume_id: str
    """That it was taken of; of a copy arbitrary (vol-ffffffff)."""
    description: str
    size_gb: int
    started_at: datetime
    tags: dict[str, str] = {}


def tags_of(disk_id: UUID, operation_id: UUID, user_id: int, name: str) -> dict[str, str]:
    """Tags of whatever belongs to a disk: its immutable id, and its name for people."""
    return {
        TAG_DISK: str(disk_id),
        TAG_OPERATION: str(operation_id),
        TAG_USER: str(user_id),
        TAG_NAME: name,
    }


def csi_tags(cluster_name: str) -> dict[str, str]:
    """Tags without which AWS's policies for the EBS CSI driver forbid it to attach a volume that it has not made.

    Args:
        cluster_name: Of the EKS cluster; empty: the policy for one cluster is not used.
    """
    return {_TAG_CSI: "true"} | ({_TAG_CSI_NAME: cluster_name} if cluster_name else {})


def original(snapshots: Iterable[AwsSnapshot], order: SnapshotOrder) -> AwsSnapshot | None:
    """The snapshot that was made by the order; None when it is not among them.

    Others' copies carry our tags, but neither our description nor our volume, and are younger.
    """
    ours = [
        snapshot
        for snapshot in snapshots
        if snapshot.volume_id == order.volume_id
        and snapshot.description == order.description
        and snapshot.tags.get(TAG_OPERATION) == str(order.operation_id)
    ]
    return min(ours, key=lambda snapshot: (snapshot.started_at, snapshot.snapshot_id), default=None)
