"""AWS EC2, for volumes and snapshots of EBS. Each call is made once: the workers are what tries again."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from services.disks.domain.aws_objects import (
    TAG_DISK,
    TAG_OPERATION,
    AwsSnapshot,
    AwsVolume,
    SnapshotOrder,
    VolumeOrder,
    original,
)
from services.disks.domain.retries import refused_for_good, tag_refused
from shared.aws import AwsError, AwsService, AwsSilent
from shared.errors import Unavailable
from shared.logs import mask_text
from shared.tracing import Kind, span

CALL_SECONDS = 10.0
"""For one call, the wait for a thread included."""
_READ_SECONDS = 6
_PAGE = 500
_MAX_REFUSAL_CHARACTERS = 300
_NOT_FOUND = ".NotFound"


class AwsUnavailable(Unavailable):
    """AWS was not reached, throttles, or does not let us in.

    Args:
        may_have_happened: The call may have had its effect; False: it is known that it had none.
    """

    def __init__(self, *, may_have_happened: bool = True, **context: object) -> None:
        super().__init__("AWS is unavailable, try again shortly", retry_after_seconds=5, **context)
        self.may_have_happened = may_have_happened


class AwsRefused(Exception):
    """AWS will never do this. The text is for the user."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(mask_text(f"AWS refused ({code}): {message}")[:_MAX_REFUSAL_CHARACTERS])
        self.reason = "Access denied" if code in _DENIED else mask_text(message or code)[:_MAX_REFUSAL_CHARACTERS]
        """The same without our words around it."""


class AwsNotFound(AwsRefused):
    """What the call is about is not there, or not to be seen yet: EC2 is eventually consistent."""


_DENIED = frozenset({"UnauthorizedOperation", "AccessDenied", "AccessDeniedException", "Client.UnauthorizedOperation"})


class Ec2:
    """EBS volumes and snapshots in one region.

    Every method raises AwsUnavailable when nothing is known: ask again.

    Args:
        region: AWS region.
        endpoint_url: None: AWS itself.
    """

    def __init__(self, *, region: str, endpoint_url: str | None = None) -> None:
        self._service = AwsService("ec2", region=region, endpoint_url=endpoint_url, read_seconds=_READ_SECONDS)

    async def create_volume(self, order: VolumeOrder) -> AwsVolume:
        """Ask for the volume. Idempotent within the day in which AWS knows client tokens (see `find_volume`).

        Raises:
            AwsNotFound: The snapshot that it is to begin with is not there, or not to be seen yet; or the zone is not.
            AwsRefused: It will never be made.
        """
        # an encrypted snapshot makes an encrypted volume; to say so again is allowed
        source = {"SnapshotId": order.source_snapshot_id} if order.source_snapshot_id else {}
        answer = await self._call(
            "create_volume",
            AvailabilityZone=order.availability_zone,
            Size=order.size_gb,
            VolumeType="gp3",
            Encrypted=True,
            ClientToken=str(order.operation_id),
            TagSpecifications=[{"ResourceType": "volume", "Tags": _pairs(order.tags)}],
            **source,
        )
        return _volume(answer)

    async def find_volume(self, order: VolumeOrder) -> AwsVolume | None:
        """The volume that an earlier attempt at this order made; None when none is to be seen (yet)."""
        filters = _tag_filters({TAG_OPERATION: str(order.operation_id), TAG_DISK: str(order.disk_id)})
        found = await self._list("describe_volumes", "Volumes", Filters=filters)
        living = [volume for volume in map(_volume, found) if volume.living]
        return min(living, key=lambda volume: (volume.created_at, volume.volume_id), default=None)

    async def delete_volume(self, volume_id: str) -> None:
        """Delete the volume. Idempotent: one that is not there is deleted.

        Raises:
            AwsRefused: AWS does not do it.
        """
        try:
            await self._call("delete_volume", VolumeId=volume_id)
        except AwsNotFound:
            return

    async def create_snapshot(self, order: SnapshotOrder) -> AwsSnapshot:
        """Ask for the snapshot. Not idempotent, since EC2 has no client token for it: look first.

        Raises:
            AwsNotFound: The volume is not there, or not to be seen yet.
            AwsRefused: It will never be made.
        """
        answer = await self._call(
            "create_snapshot",
            VolumeId=order.volume_id,
            Description=order.description,
            TagSpecifications=[{"ResourceType": "snapshot", "Tags": _pairs(order.tags)}],
        )
        return _snapshot(answer)

    async def find_snapshot(self, order: SnapshotOrder) -> AwsSnapshot | None:
        """The snapshot that an earlier attempt at this order made; None when none is to be seen (yet).

        Copies that others made of it, with its tags, are not it.
        """
        filters = _tag_filters({TAG_OPERATION: str(order.operation_id), TAG_DISK: str(order.disk_id)})
        found = await self._list("describe_snapshots", "Snapshots", OwnerIds=["self"], Filters=filters)
        return original(map(_snapshot, found), order)

    async def see_snapshot(self, snapshot_id: str) -> AwsSnapshot | None:
        """One snapshot; None when it is not to be seen (yet, or any more)."""
        try:
            answer = await self._call("describe_snapshots", SnapshotIds=[snapshot_id])
        except AwsNotFound:
            return None
        except AwsRefused as error:
            raise AwsUnavailable(cause=str(error)) from error
        return _snapshot(answer["Snapshots"][0]) if answer["Snapshots"] else None

    async def delete_snapshot(self, snapshot_id: str) -> None:
        """Delete the snapshot. Idempotent: one that is not there is deleted.

        Raises:
            AwsRefused: AWS does not do it.
        """
        try:
            await self._call("delete_snapshot", SnapshotId=snapshot_id)
        except AwsNotFound:
            return

    async def set_tags(self, aws_ids: Sequence[str], tags: dict[str, str]) -> None:
        """Give volumes and snapshots these tags, all or (some or) none. Idempotent.

        Raises:
            AwsRefused: At least one of them does not take them.
        """
        await self._call("create_tags", tag_refused, Resources=list(aws_ids), Tags=_pairs(tags))

    async def list_volumes(self) -> list[AwsVolume]:
        """Every volume that carries our tag, over all pages."""
        filters = [{"Name": "tag-key", "Values": [TAG_DISK]}]
        found = await self._list("describe_volumes", "Volumes", Filters=filters)
        return [_volume(answer) for answer in found]

    async def list_snapshots(self) -> list[AwsSnapshot]:
        """Every snapshot of our account that carries our tag, over all pages."""
        filters = [{"Name": "tag-key", "Values": [TAG_DISK]}]
        found = await self._list("describe_snapshots", "Snapshots", OwnerIds=["self"], Filters=filters)
        return [_snapshot(answer) for answer in found]

    async def close(self) -> None:
        """Take no more calls; what is under way ends by its time-outs."""
        await self._service.close()

    async def _list(self, operation: str, key: str, **arguments: Any) -> list[Any]:
        """Over all pages; each is a call of its own."""
        found: list[Any] = []
        more: dict[str, str] = {}
        while True:
            page = await self._look(operation, MaxResults=_PAGE, **arguments, **more)
            found += page[key]
            if not page.get("NextToken"):
                return found
            more = {"NextToken": page["NextToken"]}

    async def _look(self, operation: str, **arguments: Any) -> Any:
        try:
            return await self._call(operation, **arguments)
        except AwsRefused as error:
            # a look cannot be refused for good: nothing follows from a look that fails
            raise AwsUnavailable(cause=str(error)) from error

    async def _call(
        self, operation: str, for_good: Callable[[str], bool] = refused_for_good, /, **arguments: Any
    ) -> Any:
        try:
            with span(f"ask ec2: {operation}", kind=Kind.CLIENT):
                async with asyncio.timeout(CALL_SECONDS):
                    return await self._service.call(lambda client: getattr(client, operation)(**arguments))
        except AwsError as error:
            if for_good(error.code):
                kind = AwsNotFound if error.code.endswith(_NOT_FOUND) else AwsRefused
                raise kind(error.code, error.message) from error
            raise AwsUnavailable(may_have_happened=error.is_fault, code=error.code) from error
        except AwsSilent as error:
            raise AwsUnavailable(may_have_happened=error.sent, cause=error.cause) from error
        except TimeoutError as error:
            raise AwsUnavailable(cause=type(error).__name__) from error


def _pairs(tags: dict[str, str]) -> list[dict[str, str]]:
    return [{"Key": key, "Value": value} for key, value in tags.items()]


def _tag_filters(tags: dict[str, str]) -> list[dict[str, Any]]:
    return [{"Name": f"tag:{key}", "Values": [value]} for key, value in tags.items()]


def _tags(answer: Any) -> dict[str, str]:
    return {tag["Key"]: tag["Value"] for tag in answer.get("Tags", ())}


def _volume(answer: Any) -> AwsVolume:
    return AwsVolume(
        volume_id=answer["VolumeId"],
        state=answer["State"],
        availability_zone=answer["AvailabilityZone"],
        created_at=answer["CreateTime"],
        tags=_tags(answer),
    )


def _snapshot(answer: Any) -> AwsSnapshot:
    return AwsSnapshot(
        snapshot_id=answer["SnapshotId"],
        state=answer["State"],
        volume_id=answer["VolumeId"],
        description=answer.get("Description", ""),
        size_gb=answer["VolumeSize"],
        started_at=answer["StartTime"],
        tags=_tags(answer),
    )
