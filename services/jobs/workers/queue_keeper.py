"""Sees that every waiting job has its entry in capacity's queue, and announces one that has none again.

Entries come about by events; but a table may be restored to an earlier hour, or an event be lost in a way that nobody
thought of.
"""

from collections.abc import Sequence
from datetime import timedelta
from uuid import UUID

import structlog
from prometheus_client import Counter

from services.jobs import storage
from services.jobs.context import Context
from services.jobs.operations.announce import announce_again
from shared.contracts.capacity import UNPLACED_SUBJECT, UnplacedReply, UnplacedRequest
from shared.leader_lock import leader_loop
from shared.messaging import call_rpc

log = structlog.get_logger(__name__)

_LEADER_LOCK = "line"
_BATCH = 1000
_FIRST = UUID(int=0)
_announced_again = Counter("gpudev_jobs_told_again", "Waiting jobs that capacity had no place for")


class QueueKeeper:
    """Compares the waiting jobs with capacity's queue; one replica does."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._seconds = context.settings.line_seconds
        self.loop = leader_loop(
            "line_keeper",
            self.compare,
            database=context.database,
            lock=_LEADER_LOCK,
            period_seconds=self._seconds,
            turn_seconds=60.0,
            stale_seconds=5 * self._seconds + 60,
        )

    async def compare(self) -> None:
        """One comparison over all waiting jobs. One that has just changed is left alone: its event is on its way."""
        settled = self._context.clock() - timedelta(seconds=self._seconds)
        last = _FIRST
        while True:
            rows = await self._context.database.fetch_all(
                storage.queue.WAITING, after=last, before=settled, limit=_BATCH
            )
            if not rows:
                return
            ids = [row["id"] for row in rows]
            last = ids[-1]
            reply = await call_rpc(self._context.broker, UNPLACED_SUBJECT, UnplacedRequest(ids), UnplacedReply)
            await self._announce_again(reply.job_ids)

    async def _announce_again(self, ids: Sequence[UUID]) -> None:
        for job_id in ids:
            if await announce_again(job_id=job_id, now=self._context.clock(), context=self._context):
                _announced_again.inc()
                log.warning("job_told_again", job_id=str(job_id))
