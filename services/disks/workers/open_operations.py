"""Works open operations: each is given to the worker of its action, under a lease that is kept while AWS is slow.

The operation row is the intent; it is committed before AWS is called. Each pass over an operation is the same: look
for what an earlier attempt may have done, unless this is the first; do what is missing; write down what is there. So a
crash at any point is healed by the next pass, and neither a lost answer nor a second replica does anything twice.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from uuid import UUID

from services.disks.adapters.ec2 import AwsRefused, Ec2
from services.disks.domain.disk import Action
from services.disks.domain.retries import retry_after
from services.disks.domain.snapshot import Retention
from services.disks.operations.leases import Work, lease_work, postpone
from services.disks.workers.creations import Creation
from services.disks.workers.removals import Removal
from services.disks.workers.snapshots import SnapshotTaking
from services.disks.workers.tags import Tagging
from shared.database import Database
from shared.leased_worker import Budget, LeasedWorker
from shared.messaging.outbox import Wakes

_AT_ONCE = 8
_BUDGET_SECONDS = 30.0

Advance = Callable[[Work], Awaitable[timedelta | None]]
"""One pass over an operation: how long to rest before the next, None when it has ended (or is no longer ours)."""


def utc_now() -> datetime:
    """The time."""
    return datetime.now(UTC)


class OpenOperations:
    """Operations whose outcome is not known yet.

    Args:
        database: Where the operations are.
        relay: Woken for events.
        ec2: AWS.
        retention: Which snapshots are kept.
        clock: The time.
    """

    def __init__(
        self, *, database: Database, relay: Wakes, ec2: Ec2, retention: Retention, clock: Callable[[], datetime]
    ) -> None:
        self._database = database
        self._clock = clock
        removal = Removal(database=database, relay=relay, ec2=ec2, clock=clock)
        tagging = Tagging(database=database, ec2=ec2, clock=clock)
        self._workers: Mapping[Action, Advance] = {
            Action.CREATE: Creation(database=database, relay=relay, ec2=ec2, clock=clock).advance,
            Action.SNAPSHOT: SnapshotTaking(
                database=database, relay=relay, ec2=ec2, retention=retention, clock=clock
            ).advance,
            Action.RENAME: tagging.advance,
            Action.TAG: tagging.advance,
            Action.PRUNE: removal.prune,
            Action.PURGE: removal.purge,
        }

    async def claim(self, worker: UUID, lease: timedelta, limit: int) -> Sequence[Work]:
        """The proof of a lease is the operation's own counter."""
        del worker
        return await lease_work(self._database, now=self._clock(), lease_for=lease, limit=limit)

    async def renew(self, work: Work, worker: UUID, lease: timedelta) -> bool:
        """Hold it longer."""
        del worker
        return await postpone(self._database, work=work, until=self._clock() + lease, failures=work.failures)

    async def work(self, work: Work, budget: Budget) -> timedelta | None:
        """One pass of its action's worker, whose calls have time limits of their own."""
        del budget
        return await self._workers[work.action](work)

    async def give_back(self, work: Work, worker: UUID, rest: timedelta | None) -> None:
        """An operation that has ended has no lease any more."""
        del worker
        if rest is not None:
            await postpone(self._database, work=work, until=self._clock() + rest, failures=0)

    async def retry(self, work: Work, worker: UUID) -> None:
        """The more attempts failed in a row, the later."""
        del worker
        until = self._clock() + retry_after(work.failures)
        await postpone(self._database, work=work, until=until, failures=work.failures + 1)

    async def hand_over(self, work: Work, worker: UUID) -> None:
        """Nothing has failed."""
        del worker
        await postpone(self._database, work=work, until=self._clock(), failures=work.failures)


def operations_worker(
    *, database: Database, relay: Wakes, ec2: Ec2, retention: Retention, clock: Callable[[], datetime] = utc_now
) -> LeasedWorker[Work, timedelta | None]:
    """What works open operations until their outcome is known; arguments as of `OpenOperations`."""
    rows = OpenOperations(database=database, relay=relay, ec2=ec2, retention=retention, clock=clock)
    return LeasedWorker(
        "disk_work", rows, at_once=_AT_ONCE, budget_seconds=_BUDGET_SECONDS, expected=(AwsRefused,), period_seconds=0.5
    )
