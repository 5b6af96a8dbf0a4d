"""AWS EBS: the only module that talks to EC2.

boto3 blocks, so every call runs on one bounded pool of threads. Each call is made once, with short time-outs: the
reconciler is what retries.
"""

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar
from uuid import UUID

import boto3
import msgspec
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, HTTPClientError

from services.disks.domain.retries import refused_for_good
from shared.errors import Unavailable
from shared.logs import mask_text

_THREADS = 8
_CONNECT_SECONDS = 2
_READ_SECONDS = 6
_MAX_REFUSAL_CHARACTERS = 300
_SIGNED_OFF = ("deleting", "deleted")

TAG_DISK = "gpudev:disk-id"
TAG_OPERATION = "gpudev:operation-id"
TAG_USER = "gpudev:user-id"
TAG_NAME = "Name"

ResultT = TypeVar("ResultT")


class AwsUnavailable(Unavailable):
    """AWS was not reached, throttles, or does not let us in. The call may have had its effect."""

    def __init__(self, **context: object) -> None:
        super().__init__("AWS is unavailable, try again shortly", retry_after_seconds=5, **context)


class AwsRefused(Exception):
    """AWS will never do this. The text is for the user."""


class VolumeOrder(msgspec.Struct, frozen=True, kw_only=True):
    """A volume to be made; the same order always has the same content, or AWS would refuse its repetition."""

    operation_id: UUID
    disk_id: UUID
    user_id: int
    disk_name: str
    """At the time of the request: for people who look at AWS."""
    size_gb: int
    availability_zone: str


class Volume(msgspec.Struct, frozen=True):
    volume_id: str
    state: str
    """creating, available, in-use, error: EC2's words."""
    availability_zone: str


class Ebs:
    """EBS volumes in one region.

    Args:
        region: AWS region.
        endpoint_url: None: AWS itself.
    """

    def __init__(self, *, region: str, endpoint_url: str | None = None) -> None:
        self._region = region
        self._endpoint_url = endpoint_url
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="ebs")
        self._making = threading.Lock()
        self._client: Any = None

    async def create_volume(self, order: VolumeOrder) -> Volume:
        """Ask for the volume. Idempotent within the day in which AWS knows client tokens (see `find_volume`).

        Raises:
            AwsUnavailable: Nothing is known; ask again.
            AwsRefused: It will never be made.
        """
        answer = await self._call(
            lambda client: client.create_volume(
                AvailabilityZone=order.availability_zone,
                Size=order.size_gb,
                VolumeType="gp3",
                Encrypted=True,
                ClientToken=str(order.operation_id),
                TagSpecifications=[{"ResourceType": "volume", "Tags": _tags(order)}],
            )
        )
        return _volume(answer)

    async def find_volume(self, order: VolumeOrder) -> Volume | None:
        """The volume that an earlier attempt at this order made; None when none is to be seen (yet).

        Raises:
            AwsUnavailable: Nothing is known; ask again.
        """
        filters = [
            {"Name": f"tag:{TAG_OPERATION}", "Values": [str(order.operation_id)]},
            {"Name": f"tag:{TAG_DISK}", "Values": [str(order.disk_id)]},
        ]
        try:
            answer = await self._call(lambda client: client.describe_volumes(Filters=filters))
        except AwsRefused as error:
            # a look cannot be refused for good: nothing follows for the disk from a look that fails
            raise AwsUnavailable(cause=str(error)) from error
        found = sorted(answer["Volumes"], key=lambda volume: volume["CreateTime"])
        living = [volume for volume in found if volume["State"] not in _SIGNED_OFF]
        return _volume(living[0]) if living else None

    async def delete_volume(self, volume_id: str) -> None:
        """Delete the volume. Idempotent: one that is not there is deleted.

        Raises:
            AwsUnavailable: Nothing is known; ask again.
            AwsRefused: It is in use.
        """
        try:
            await self._call(lambda client: client.delete_volume(VolumeId=volume_id))
        except AwsRefused as error:
            if "(InvalidVolume.NotFound)" not in str(error):
                raise

    async def close(self) -> None:
        """Take no more calls; what is under way ends by its time-outs."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _call(self, call: Callable[[Any], ResultT]) -> ResultT:
        return await asyncio.get_running_loop().run_in_executor(self._threads, self._blocking, call)

    def _blocking(self, call: Callable[[Any], ResultT]) -> ResultT:
        try:
            return call(self._connected())
        except ClientError as error:
            code, message = error.response["Error"].get("Code", ""), error.response["Error"].get("Message", "")
            if refused_for_good(code):
                text = mask_text(f"AWS refused ({code}): {message}")
                raise AwsRefused(text[:_MAX_REFUSAL_CHARACTERS]) from error
            raise AwsUnavailable(code=code) from error
        except (BotoCoreError, HTTPClientError, OSError) as error:
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


def _tags(order: VolumeOrder) -> list[dict[str, str]]:
    tags = {
        TAG_DISK: str(order.disk_id),
        TAG_OPERATION: str(order.operation_id),
        TAG_USER: str(order.user_id),
        TAG_NAME: order.disk_name,
    }
    return [{"Key": key, "Value": value} for key, value in tags.items()]


def _volume(answer: Any) -> Volume:
    return Volume(answer["VolumeId"], answer["State"], answer["AvailabilityZone"])
