"""AWS EBS: the only module that talks to EC2.

boto3 blocks, so every call runs on one bounded pool of threads. Each call is made once, with short time-outs: the
reconciler is what retries.
"""

import asyncio
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import boto3
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectTimeoutError,
    EndpointConnectionError,
    HTTPClientError,
)
from botocore.parsers import ResponseParserError

from services.disks.domain.aws import (
    TAG_DISK,
    TAG_NAME,
    TAG_OPERATION,
    AwsSnapshot,
    AwsVolume,
    SnapshotOrder,
    VolumeOrder,
    original,
)
from services.disks.domain.retries import refused_for_good, tag_refused
from shared.errors import Unavailable
from shared.logs import mask_text

_THREADS = 8
_CONNECT_SECONDS = 2
_READ_SECONDS = 6
_PAGE = 500
_MAX_REFUSAL_CHARACTERS = 300
_SERVER_FAULT = 500
_NOT_FOUND = ".NotFound"

ResultT = TypeVar("ResultT")


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
        self.reason = "Access denied" if code in _DENIED else mask_text(message)[:_MAX_REFUSAL_CHARACTERS]
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
        self._region = region
        self._endpoint_url = endpoint_url
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="ec2")
        self._making = threading.Lock()
        self._client: Any = None

    async def create_volume(self, order: VolumeOrder) -> AwsVolume:
        """Ask for the volume. Idempotent within the day in which AWS knows client tokens (see `find_volume`).

        Raises:
            AwsNotFound: The snapshot that it is to begin with is not there, or not to be seen yet; or the zone is not.
            AwsRefused: It will never be made.
        """
        # an encrypted snapshot makes an encrypted volume; to say so again is allowed
        source = {"SnapshotId": order.source_snapshot_id} if order.source_snapshot_id else {}
        answer = await self._call(
            lambda client: client.create_volume(
                AvailabilityZone=order.availability_zone,
                Size=order.size_gb,
                VolumeType="gp3",
                Encrypted=True,
                ClientToken=str(order.operation_id),
                TagSpecifications=[{"ResourceType": "volume", "Tags": _pairs(order.tags)}],
                **source,
            )
        )
        return _volume(answer)

    async def find_volume(self, order: VolumeOrder) -> AwsVolume | None:
        """The volume that an earlier attempt at this order made; None when none is to be seen (yet)."""
        filters = _tag_filters({TAG_OPERATION: str(order.operation_id), TAG_DISK: str(order.disk_id)})
        found = await self._look(lambda client: _pages(client, "describe_volumes", "Volumes", Filters=filters))
        living = sorted((v for v in map(_volume, found) if v.living), key=lambda volume: volume.created_at)
        return living[0] if living else None

    async def delete_volume(self, volume_id: str) -> None:
        """Delete the volume. Idempotent: one that is not there is deleted.

        Raises:
            AwsRefused: AWS does not do it.
        """
        try:
            await self._call(lambda client: client.delete_volume(VolumeId=volume_id))
        except AwsNotFound:
            return

    async def create_snapshot(self, order: SnapshotOrder) -> AwsSnapshot:
        """Ask for the snapshot. Not idempotent, since EC2 has no client token for it: look first.

        Raises:
            AwsNotFound: The volume is not there, or not to be seen yet.
            AwsRefused: It will never be made.
        """
        answer = await self._call(
            lambda client: client.create_snapshot(
                VolumeId=order.volume_id,
                Description=order.description,
                TagSpecifications=[{"ResourceType": "snapshot", "Tags": _pairs(order.tags)}],
            )
        )
        return _snapshot(answer)

    async def find_snapshot(self, order: SnapshotOrder) -> AwsSnapshot | None:
        """The snapshot that an earlier attempt at this order made; None when none is to be seen (yet).

        Copies that others made of it, with its tags, are not it.
        """
        filters = _tag_filters({TAG_OPERATION: str(order.operation_id), TAG_DISK: str(order.disk_id)})
        found = await self._look(
            lambda client: _pages(client, "describe_snapshots", "Snapshots", OwnerIds=["self"], Filters=filters)
        )
        return original(map(_snapshot, found), order)

    async def see_snapshot(self, snapshot_id: str) -> AwsSnapshot | None:
        """One snapshot; None when it is not to be seen (yet, or any more)."""
        try:
            answer = await self._call(lambda client: client.describe_snapshots(SnapshotIds=[snapshot_id]))
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
            await self._call(lambda client: client.delete_snapshot(SnapshotId=snapshot_id))
        except AwsNotFound:
            return

    async def set_name(self, aws_ids: Sequence[str], name: str) -> None:
        """Give volumes and snapshots this Name tag, all or (some or) none. Idempotent.

        Raises:
            AwsRefused: At least one of them does not take it.
        """
        tags = _pairs({TAG_NAME: name})
        await self._call(lambda client: client.create_tags(Resources=list(aws_ids), Tags=tags), tag_refused)

    async def list_volumes(self) -> list[AwsVolume]:
        """Every volume that carries our tag, over all pages."""
        filters = [{"Name": "tag-key", "Values": [TAG_DISK]}]
        found = await self._look(lambda client: _pages(client, "describe_volumes", "Volumes", Filters=filters))
        return [_volume(answer) for answer in found]

    async def list_snapshots(self) -> list[AwsSnapshot]:
        """Every snapshot of our account that carries our tag, over all pages."""
        filters = [{"Name": "tag-key", "Values": [TAG_DISK]}]
        found = await self._look(
            lambda client: _pages(client, "describe_snapshots", "Snapshots", OwnerIds=["self"], Filters=filters)
        )
        return [_snapshot(answer) for answer in found]

    async def close(self) -> None:
        """Take no more calls; what is under way ends by its time-outs."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _look(self, call: Callable[[Any], ResultT]) -> ResultT:
        try:
            return await self._call(call)
        except AwsRefused as error:
            # a look cannot be refused for good: nothing follows from a look that fails
            raise AwsUnavailable(cause=str(error)) from error

    async def _call(
        self, call: Callable[[Any], ResultT], for_good: Callable[[str], bool] = refused_for_good
    ) -> ResultT:
        return await asyncio.get_running_loop().run_in_executor(self._threads, self._blocking, call, for_good)

    def _blocking(self, call: Callable[[Any], ResultT], for_good: Callable[[str], bool]) -> ResultT:
        try:
            return call(self._connected())
        except ClientError as error:
            told = error.response["Error"]
            # an empty element is read as None
            code, message = told.get("Code") or "", told.get("Message") or ""
            if for_good(code):
                raise (AwsNotFound if code.endswith(_NOT_FOUND) else AwsRefused)(code, message) from error
            status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", _SERVER_FAULT)
            unknown = status >= _SERVER_FAULT and "Exceeded" not in code and "Throttl" not in code
            raise AwsUnavailable(may_have_happened=unknown, code=code) from error
        except (EndpointConnectionError, ConnectTimeoutError) as error:
            raise AwsUnavailable(may_have_happened=False, cause=type(error).__name__) from error
        except (BotoCoreError, HTTPClientError, ResponseParserError, OSError) as error:
            raise AwsUnavailable(cause=type(error).__name__) from error

    def _connected(self) -> Any:
        # made once, and not at start: it reads files and, in production, asks for the role's credentials
        with self._making:
            if self._client is None:
                self._client = boto3.session.Session().client(
                    "ec2",
                    region_name=self._region,
                    endpoint_url=self._endpoint_url,
                    config=Config(
                        connect_timeout=_CONNECT_SECONDS,
                        read_timeout=_READ_SECONDS,
                        retries={"total_max_attempts": 1, "mode": "standard"},
                        max_pool_connections=_THREADS,
                    ),
                )
            return self._client


def _pages(client: Any, operation: str, key: str, **arguments: Any) -> list[Any]:
    pages: Iterator[Any] = client.get_paginator(operation).paginate(**arguments, PaginationConfig={"PageSize": _PAGE})
    return [item for page in pages for item in page[key]]


def _pairs(tags: dict[str, str]) -> list[dict[str, str]]:
    return [{"Key": key, "Value": value} for key, value in tags.items()]


def _tag_filters(tags: dict[str, str]) -> list[dict[str, Any]]:
    return [{"Name": f"tag:{key}", "Values": [value]} for key, value in tags.items()]


def _tags(answer: Any) -> dict[str, str]:
    return {tag["Key"]: tag["Value"] for tag in answer.get("Tags", ())}


def _volume(answer: Any) -> AwsVolume:
    return AwsVolume(
        volume_id=answer["VolumeId"], state=answer["State"], availability_zone=answer["AvailabilityZone"],
        created_at=answer["CreateTime"], tags=_tags(answer),
    )  # fmt: skip


def _snapshot(answer: Any) -> AwsSnapshot:
    return AwsSnapshot(
        snapshot_id=answer["SnapshotId"], state=answer["State"], volume_id=answer["VolumeId"],
        description=answer.get("Description", ""), size_gb=answer["VolumeSize"], started_at=answer["StartTime"],
        tags=_tags(answer),
    )  # fmt: skip
