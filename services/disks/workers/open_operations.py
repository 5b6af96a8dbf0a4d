"""Works open operations: each is given to the pass of its action, under a lease that is kept while AWS is slow.

The operation row is the intent; it is committed before AWS is called. Each pass over an operation is the same: look
for what an earlier attempt may have done, unless this is the first; do what is missing; write down what is there. So a
crash at any point is healed by the next pass, and neither a lost answer nor a second replica does anything twice.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import timedelta
from uuid import UUID

from services.disks.adapters.ec2 import AwsRefused
from services.disks.context import Context
from services.disks.domain.operation import Action, Work
from services.disks.domain.retries import retry_after
from services.disks.operations.lease import lease_work, postpone
from shared.leased_worker import Budget, LeasedWorker
from shared.tracing import span

_AT_ONCE = 8
BUDGET_SECONDS = 30.0

Pass = Callable[[Context, Work, Budget], Awaitable[timedelta | None]]
"""One pass over an operation: how long to rest before the next, None when it has ended (or is no longer ours)."""


class OpenOperations:
    """Operations whose outcome is not known yet.

    Args:
        context: Of the service.
        passes: What works the operations of each action.
    """

    def __init__(self, context: Context, passes: Mapping[Action, Pass]) -> None:
        self._context = context
        self._passes = passes

    async def claim(self, worker: UUID, lease: timedelta, limit: int) -> Sequence[Work]:
        """The proof of a lease is the operation's own counter."""
        del worker
        return await lease_work(self._context.database, now=self._context.clock(), lease_for=lease, limit=limit)

    async def renew(self, work: Work, worker: UUID, lease: timedelta) -> bool:
        """Hold it longer."""
        del worker
        return await self._postpone(work, lease, failures=work.failures)

    async def work(self, work: Work, budget: Budget) -> timedelta | None:
        """One pass of its action's."""
        # the parent is the operation's own: without one it has no span, whatever the worker itself does
        if work.traceparent is None:
            return await self._passes[work.action](self._context, work, budget)
        about = {"gpudev.disk_id": str(work.disk_id), "gpudev.operation_id": str(work.id)}
        with span(f"work: {work.action}", parent=work.traceparent, attributes=about):
            return await self._passes[work.action](self._context, work, budget)

    async def give_back(self, work: Work, worker: UUID, rest: timedelta | None) -> None:
        """An operation that has ended has no lease any more."""
        del worker
        if rest is not None:
            await self._postpone(work, rest, failures=0)

    async def retry(self, work: Work, worker: UUID) -> None:
        """The more attempts failed in a row, the later."""
        del worker
        await self._postpone(work, retry_after(work.failures), failures=work.failures + 1)

    async def hand_over(self, work: Work, worker: UUID) -> None:
        """Nothing has failed."""
        del worker
        await self._postpone(work, timedelta(0), failures=work.failures)

    async def _postpone(self, work: Work, rest: timedelta, *, failures: int) -> bool:
        until = self._context.clock() + rest
        return await postpone(self._context.database, work=work, until=until, failures=failures)


def operations_worker(
    context: Context, passes: Mapping[Action, Pass], *, budget_seconds: float = BUDGET_SECONDS
) -> LeasedWorker[Work, timedelta | None]:
    """What works open operations until their outcome is known.

    Args:
        context: Of the service.
        passes: As of `OpenOperations`.
        budget_seconds: For one pass.
    """
    return LeasedWorker(
        "disk_work",
        OpenOperations(context, passes),
        at_once=_AT_ONCE,
        budget_seconds=budget_seconds,
        expected=(AwsRefused,),
        period_seconds=0.5,
    )
