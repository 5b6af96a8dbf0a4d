"""Makes the volume of a disk that is to be made."""

from collections.abc import Callable
from datetime import datetime, timedelta

import structlog

from services.disks.adapters.ec2 import AwsNotFound, AwsRefused, Ec2
from services.disks.domain.aws import AwsVolume, VolumeOrder
from services.disks.domain.retries import LOST_AFTER, poll_after
from services.disks.operations.creations import complete_creation, fail_creation
from services.disks.operations.leases import Work
from shared.database import Database
from shared.messaging.outbox import Wakes

log = structlog.get_logger(__name__)

_USABLE = ("available", "in-use")


class Creation:
    def __init__(self, *, database: Database, relay: Wakes, ec2: Ec2, clock: Callable[[], datetime]) -> None:
        self._database = database
        self._relay = relay
        self._ec2 = ec2
        self._clock = clock

    async def advance(self, work: Work) -> timedelta | None:
        """One pass: find the volume or ask for it, and end when it is there or refused."""
        try:
            volume = await self._find_or_create(work)
        except AwsRefused as refusal:
            if self._may_show_up(work, refusal):
                return poll_after(self._clock() - work.created_at)
            await self._fail(work, str(refusal))
            return None
        if volume.state in _USABLE:
            await complete_creation(
                self._database, self._relay, work=work, volume_id=volume.volume_id,
                availability_zone=volume.availability_zone, now=self._clock(),
            )  # fmt: skip
            return None
        if volume.state == "error":
            await self._ec2.delete_volume(volume.volume_id)
            await self._fail(work, "AWS could not make the volume")
            return None
        return poll_after(self._clock() - work.created_at)

    async def _find_or_create(self, work: Work) -> AwsVolume:
        order = VolumeOrder(
            operation_id=work.id, disk_id=work.disk_id, user_id=work.user_id, disk_name=work.disk_name,
            size_gb=work.size_gb, availability_zone=work.availability_zone,
            source_snapshot_id=work.source_snapshot_id,
        )  # fmt: skip
        # AWS forgets client tokens after a day; the tag stays. A volume too young to be seen is what the token is for.
        found = await self._ec2.find_volume(order) if work.lease > 1 else None
        return found or await self._ec2.create_volume(order)

    def _may_show_up(self, work: Work, refusal: AwsRefused) -> bool:
        """A snapshot that was seen complete may still be unknown where the volume is made."""
        unseen = isinstance(refusal, AwsNotFound) and work.source_snapshot_id is not None
        return unseen and self._clock() < work.created_at + LOST_AFTER

    async def _fail(self, work: Work, error: str) -> None:
        log.warning("disk_creation_refused", operation_id=str(work.id), error=error)
        await fail_creation(self._database, self._relay, work=work, error=error, now=self._clock())
