"""Works open operations: leases them, gives each to the worker of its action, and keeps the lease while AWS is slow.

The operation row is the intent; it is committed before AWS is called. Each pass over an operation is the same: look
for what an earlier attempt may have done, unless this is the first; do what is missing; write down what is there. So a
crash at any point is healed by the next pass, and neither a lost answer nor a second replica does anything twice.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta

import structlog

from services.disks.domain.disk import Action
from services.disks.domain.retries import retry_after
from services.disks.domain.snapshot import Retention
from services.disks.ebs import AwsRefused, AwsUnavailable, Ebs
from services.disks.operations.work import Work, lease_work, postpone
from services.disks.reconciler.creation import Creation
from services.disks.reconciler.removal import Removal
from services.disks.reconciler.snapshot import SnapshotTaking
from services.disks.reconciler.tagging import Tagging
from shared.background import Loop
from shared.database import Database
from shared.errors import DatabaseUnavailable
from shared.messaging.outbox import Wakes

log = structlog.get_logger(__name__)

_AT_ONCE = 8
_TURN_SECONDS = 30.0
LEASE = timedelta(seconds=8)
"""Short, so that a dead worker's operations go on within 10 s; a living one renews it."""
_RENEW_SECONDS = 2.0

Advance = Callable[[Work], Awaitable[timedelta | None]]
"""One pass over an operation: how long to rest before the next, None when it has ended (or is no longer ours)."""


def utc_now() -> datetime:
    """The time."""
    return datetime.now(UTC)


class Reconciler:
    """Works open operations until their outcome is known.

    Args:
        database: Where the operations are.
        relay: Woken for events.
        ebs: AWS.
        retention: Which restore points are kept.
        clock: The time.
    """

    def __init__(
        self, *, database: Database, relay: Wakes, ebs: Ebs, retention: Retention,
        clock: Callable[[], datetime] = utc_now,
    ) -> None:  # fmt: skip
        self._database = database
        self._clock = clock
        removal = Removal(database=database, relay=relay, ebs=ebs, clock=clock)
        tagging = Tagging(database=database, ebs=ebs, clock=clock)
        self._workers: Mapping[Action, Advance] = {
            Action.CREATE: Creation(database=database, relay=relay, ebs=ebs, clock=clock).advance,
            Action.SNAPSHOT: SnapshotTaking(
                database=database, relay=relay, ebs=ebs, retention=retention, clock=clock
            ).advance,
            Action.RENAME: tagging.advance,
            Action.TAG: tagging.advance,
            Action.PRUNE: removal.prune,
            Action.PURGE: removal.purge,
        }
        self.loop = Loop("disk_work", self.turn, period_seconds=0.5, turn_seconds=_TURN_SECONDS, stale_seconds=60.0)

    def wake(self) -> None:
        """Run a turn soon."""
        self.loop.wake()

    async def turn(self) -> bool:
        """Lease what is due and move each on; True when there may be more."""
        leased = await lease_work(self._database, now=self._clock(), lease_for=LEASE, limit=_AT_ONCE)
        await asyncio.gather(*(self._work(work) for work in leased))
        return len(leased) >= _AT_ONCE

    async def _work(self, work: Work) -> None:
        try:
            async with held(self._database, work, self._clock):
                rest = await self._workers[work.action](work)
        except (AwsUnavailable, AwsRefused) as error:
            context = error.context if isinstance(error, AwsUnavailable) else {"refusal": str(error)}
            log.warning("aws_unavailable", operation_id=str(work.id), action=work.action, context=context)
            await self._retry_later(work)
        except DatabaseUnavailable:
            raise
        except Exception:
            # one bad row must not stop the others
            log.exception("operation_failed_unexpectedly", operation_id=str(work.id), action=work.action)
            await self._retry_later(work)
        else:
            if rest is not None:
                await postpone(self._database, work=work, until=self._clock() + rest, failures=0)

    async def _retry_later(self, work: Work) -> None:
        until = self._clock() + retry_after(work.failures)
        await postpone(self._database, work=work, until=until, failures=work.failures + 1)


@asynccontextmanager
async def held(database: Database, work: Work, clock: Callable[[], datetime]) -> AsyncIterator[None]:
    """Renew a lease for the length of a block; when the renewing fails, what the block writes is refused, no more."""
    renewing = asyncio.create_task(_renew(database, work, clock))
    try:
        yield
    finally:
        renewing.cancel()
        await asyncio.wait([renewing])


async def _renew(database: Database, work: Work, clock: Callable[[], datetime]) -> None:
    while True:
        await asyncio.sleep(_RENEW_SECONDS)
        with suppress(DatabaseUnavailable):
            await postpone(database, work=work, until=clock() + LEASE, failures=work.failures)
