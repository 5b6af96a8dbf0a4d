"""Sees that every waiting job has its entry in capacity's queue, and announces one that has none again.

Entries come about by events; but a table may be restored to an earlier hour, or an event be lost in a way that nobody
thought of. One that is only late, since the broker or a replica was away, is not told again: whoever listens would get
it twice, under two ids.
"""

import asyncio
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
from shared.messaging.stream_reader import StreamReader

log = structlog.get_logger(__name__)

_LEADER_LOCK = "line"
_BATCH = 1000
_FIRST = UUID(int=0)
_EFFECT_SECONDS = 1.0
"""In which events that have gone out have their effect, unless something is wrong."""
_announced_again = Counter("gpudev_jobs_told_again", "Waiting jobs that capacity had no place for")


class QueueKeeper:
    """Compares the waiting jobs with capacity's queue; one replica does."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._stream = StreamReader(context.broker)
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
            if suspects := await self._unplaced(ids, published_up_to=0):
                await self._announce_again(await self._lost(suspects))

    async def _lost(self, suspects: Sequence[UUID]) -> Sequence[UUID]:
        """Those whose events have gone out and had their effect at capacity, and that have no place all the same."""
        unsent = await self._context.database.fetch_all(storage.queue.UNSENT, ids=[str(one) for one in suspects])
        late = {UUID(row["entity_id"]) for row in unsent}
        settled = [one for one in suspects if one not in late]
        if not settled:
            return []
        published_up_to = (await self._stream.bounds()).last
        await asyncio.sleep(_EFFECT_SECONDS)
        return await self._unplaced(settled, published_up_to=published_up_to)

    async def _unplaced(self, ids: Sequence[UUID], *, published_up_to: int) -> Sequence[UUID]:
        request = UnplacedRequest(list(ids), published_up_to)
        return (await call_rpc(self._context.broker, UNPLACED_SUBJECT, request, UnplacedReply)).job_ids

    async def _announce_again(self, ids: Sequence[UUID]) -> None:
        for job_id in ids:
            if await announce_again(job_id=job_id, now=self._context.clock(), context=self._context):
                _announced_again.inc()
                log.warning("job_told_again", job_id=str(job_id))
