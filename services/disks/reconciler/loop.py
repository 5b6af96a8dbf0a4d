"""Makes the volumes of the disks that are to be made, and lets go of claims that nobody confirmed.

The operation row is the intent; it is committed before AWS is called. Each pass over an operation is the same: look
for the volume by the operation's tag, unless this is the first attempt; ask for it (with the operation's id as client
token) when there is none; finish when it is there. So a crash at any point is healed by the next pass, and neither a
lost answer nor a second replica makes a second volume.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta

import structlog

from services.disks.domain.retries import retry_after
from services.disks.ebs import AwsRefused, AwsUnavailable, Ebs, Volume, VolumeOrder
from services.disks.operations.claims import drop_expired_claims
from services.disks.operations.creations import (
    LeasedCreation,
    complete_creation,
    fail_creation,
    lease_creations,
    postpone,
    purge_history,
)
from shared.background import Loop
from shared.database import Database
from shared.errors import DatabaseUnavailable
from shared.messaging.outbox import Wakes

log = structlog.get_logger(__name__)

_AT_ONCE = 8
_TURN_SECONDS = 30.0
_LEASE = timedelta(seconds=8)
"""Short, so that a dead worker's operations go on within 10 s; a living one renews it."""
_RENEW_SECONDS = 2.0
_POLL = timedelta(seconds=0.4)
_RETENTION = timedelta(days=90)
_PURGE_PERIOD_SECONDS = 3600.0

_USABLE = ("available", "in-use")


def utc_now() -> datetime:
    """The time."""
    return datetime.now(UTC)


class CreationReconciler:
    """Works open creations until their volumes are there or refused.

    Args:
        database: Where the operations are.
        relay: Woken for events.
        ebs: AWS.
        clock: The time.
    """

    def __init__(self, *, database: Database, relay: Wakes, ebs: Ebs, clock: Callable[[], datetime] = utc_now) -> None:
        self._database = database
        self._relay = relay
        self._ebs = ebs
        self._clock = clock
        self.loop = Loop("disk_creation", self.turn, period_seconds=0.5, turn_seconds=_TURN_SECONDS, stale_seconds=60.0)

    def wake(self) -> None:
        """Run a turn soon."""
        self.loop.wake()

    async def turn(self) -> bool:
        """Lease what is due and move each on; True when there may be more."""
        leased = await lease_creations(self._database, now=self._clock(), lease_for=_LEASE, limit=_AT_ONCE)
        await asyncio.gather(*(self._work(work) for work in leased))
        return len(leased) >= _AT_ONCE

    async def _work(self, work: LeasedCreation) -> None:
        try:
            await self._advance(work)
        except AwsUnavailable as error:
            log.warning("aws_unavailable", operation_id=str(work.id), context=error.context)
            await self._retry_later(work)
        except DatabaseUnavailable:
            raise
        except Exception:
            # one bad row must not stop the others
            log.exception("operation_failed_unexpectedly", operation_id=str(work.id))
            await self._retry_later(work)

    async def _advance(self, work: LeasedCreation) -> None:
        try:
            async with self._held(work):
                volume = await self._find_or_create(work)
        except AwsRefused as refusal:
            await self._fail(work, str(refusal))
            return
        if volume.state in _USABLE:
            await complete_creation(
                self._database,
                self._relay,
                work=work,
                volume_id=volume.volume_id,
                availability_zone=volume.availability_zone,
                now=self._clock(),
            )
        elif volume.state == "error":
            await self._ebs.delete_volume(volume.volume_id)
            await self._fail(work, "AWS could not make the volume")
        else:
            await postpone(self._database, work=work, until=self._clock() + _POLL, failures=0)

    @asynccontextmanager
    async def _held(self, work: LeasedCreation) -> AsyncIterator[None]:
        """Renew the lease while AWS is slow; when the renewing fails, the end of the work is refused, no more."""
        renewing = asyncio.create_task(self._renew(work))
        try:
            yield
        finally:
            renewing.cancel()
            await asyncio.wait([renewing])

    async def _renew(self, work: LeasedCreation) -> None:
        while True:
            await asyncio.sleep(_RENEW_SECONDS)
            with suppress(DatabaseUnavailable):
                await postpone(self._database, work=work, until=self._clock() + _LEASE, failures=work.failures)

    async def _find_or_create(self, work: LeasedCreation) -> Volume:
        order = VolumeOrder(
            operation_id=work.id,
            disk_id=work.disk_id,
            user_id=work.user_id,
            disk_name=work.disk_name,
            size_gb=work.size_gb,
            availability_zone=work.availability_zone,
        )
        # AWS forgets client tokens after a day; the tag stays. A volume too young to be seen is what the token is for.
        found = await self._ebs.find_volume(order) if work.lease > 1 else None
        return found or await self._ebs.create_volume(order)

    async def _fail(self, work: LeasedCreation, error: str) -> None:
        log.warning("disk_creation_refused", operation_id=str(work.id), error=error)
        await fail_creation(self._database, self._relay, work=work, error=error, now=self._clock())

    async def _retry_later(self, work: LeasedCreation) -> None:
        until = self._clock() + retry_after(work.failures)
        await postpone(self._database, work=work, until=until, failures=work.failures + 1)


def claim_expiry_loop(database: Database, clock: Callable[[], datetime] = utc_now) -> Loop:
    """Drops claims whose jobs never came."""

    async def turn() -> None:
        dropped = await drop_expired_claims(database, now=clock())
        if dropped:
            log.info("claims_dropped", count=dropped)

    return Loop("claim_expiry", turn, period_seconds=1.0)


def history_loop(database: Database, clock: Callable[[], datetime] = utc_now) -> Loop:
    """Forgets what ended 90 days ago."""

    async def turn() -> None:
        await purge_history(database, before=clock() - _RETENTION)

    return Loop("disk_history", turn, period_seconds=_PURGE_PERIOD_SECONDS, stale_seconds=3 * _PURGE_PERIOD_SECONDS)
