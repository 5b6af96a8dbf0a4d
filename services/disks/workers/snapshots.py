"""Takes the snapshots that are wanted.

CreateSnapshot has no client token. So that none is taken twice, each asking is written down first; after one whose
answer was lost, AWS is looked at by our tag, and only asked again when nothing has shown up for a while: what EC2
made is not always to be seen at once.
"""

from collections.abc import Callable
from datetime import datetime, timedelta

import structlog

from services.disks.adapters.ec2 import AwsNotFound, AwsRefused, AwsUnavailable, Ec2
from services.disks.domain.aws import AwsSnapshot, SnapshotOrder
from services.disks.domain.retries import LOST_AFTER, poll_after
from services.disks.domain.snapshot import Retention
from services.disks.operations.leases import Work
from services.disks.operations.snapshots import (
    bind_snapshot,
    complete_snapshot,
    fail_snapshot,
    note_asked,
    read_intent,
)
from shared.database import Database
from shared.messaging.outbox import Wakes

log = structlog.get_logger(__name__)

_UNSEEN_FOR = timedelta(seconds=30)
"""How long a snapshot that may have been made is looked for before it is asked for again."""
_POLL = timedelta(seconds=1)


class SnapshotTaking:
    def __init__(
        self, *, database: Database, relay: Wakes, ec2: Ec2, retention: Retention, clock: Callable[[], datetime]
    ) -> None:
        self._database = database
        self._relay = relay
        self._ec2 = ec2
        self._retention = retention
        self._clock = clock

    async def advance(self, work: Work) -> timedelta | None:
        """One pass: find the snapshot or ask for it, and end when it is complete or refused."""
        intent = await read_intent(self._database, work.id)
        try:
            if intent.snapshot_id is not None:
                return await self._follow(work, intent.snapshot_id)
            return await self._make(work, intent.asked_at)
        except AwsRefused as refusal:
            await self._fail(work, str(refusal))
            return None

    async def _follow(self, work: Work, snapshot_id: str) -> timedelta | None:
        snapshot = await self._ec2.see_snapshot(snapshot_id)
        if snapshot is None:
            return await self._unseen(work, f"Snapshot {snapshot_id} is no longer in AWS")
        return await self._judge(work, snapshot)

    async def _make(self, work: Work, asked_at: datetime | None) -> timedelta | None:
        order = SnapshotOrder(
            operation_id=work.id, disk_id=work.disk_id, user_id=work.user_id, disk_name=work.name_now,
            volume_id=work.volume_id or "",
        )  # fmt: skip
        if asked_at is not None:
            found = await self._ec2.find_snapshot(order)
            if found is not None:
                return await self._bind(work, found)
            if self._clock() < asked_at + _UNSEEN_FOR:
                return _POLL
        return await self._ask(work, order)

    async def _ask(self, work: Work, order: SnapshotOrder) -> timedelta | None:
        if not await note_asked(self._database, work=work, at=self._clock()):
            return None
        try:
            made = await self._ec2.create_snapshot(order)
        except AwsNotFound:
            await note_asked(self._database, work=work, at=None)
            return await self._unseen(work, f"Volume {order.volume_id} is no longer in AWS")
        except AwsUnavailable as error:
            if not error.may_have_happened:
                await note_asked(self._database, work=work, at=None)
            raise
        return await self._bind(work, made)

    async def _bind(self, work: Work, snapshot: AwsSnapshot) -> timedelta | None:
        # the tag as it was written, which a rename may have outrun
        name = snapshot.tags.get("Name", work.name_now)
        bound = await bind_snapshot(
            self._database, work=work, aws_id=snapshot.snapshot_id, name_tag=name, now=self._clock()
        )
        return await self._judge(work, snapshot) if bound else None

    async def _judge(self, work: Work, snapshot: AwsSnapshot) -> timedelta | None:
        if snapshot.state == "completed":
            await complete_snapshot(
                self._database, self._relay, work=work, retention=self._retention, now=self._clock()
            )
            return None
        if snapshot.state == "error":
            await self._ec2.delete_snapshot(snapshot.snapshot_id)
            await self._fail(work, "AWS could not take the snapshot")
            return None
        return poll_after(self._clock() - work.created_at)

    async def _unseen(self, work: Work, error: str) -> timedelta | None:
        if self._clock() < work.created_at + LOST_AFTER:
            return poll_after(self._clock() - work.created_at)
        await self._fail(work, error)
        return None

    async def _fail(self, work: Work, error: str) -> None:
        log.warning("snapshot_refused", operation_id=str(work.id), error=error)
        await fail_snapshot(self._database, self._relay, work=work, error=error, now=self._clock())
