"""Collects what commands print while they are being ended."""

import asyncio
from uuid import UUID

import structlog

from services.jobs import storage
from services.jobs.adapters.kubernetes import Cluster, LogNotThere
from services.jobs.context import Context
from services.jobs.domain.job import Job, KeptLog
from services.jobs.domain.kept_lines import tail_that_holds
from services.jobs.domain.manifests import object_name
from services.jobs.operations.archive_log import KEEP_SECONDS, find_kept_log, read_lines
from services.jobs.operations.seal import seal_log
from shared.background import cancel_all
from shared.errors import Unavailable

log = structlog.get_logger(__name__)

_HEARD_SECONDS = 1.0
_MAX_LISTENING = 32
"""Each holds a kept log in memory."""


class FinalLog:
    """Collects what commands print while they are being ended, after SIGTERM.

    What was stored before the deletion is the promise; this is added to it where the replica lives to see it.

    Args:
        cluster: Where the pods are.
        context: The service's.
    """

    def __init__(self, cluster: Cluster, context: Context) -> None:
        self._cluster = cluster
        self._context = context
        self._listening: dict[UUID, asyncio.Task[None]] = {}

    async def listen(self, job: Job, stored: KeptLog) -> None:
        """Begin with a job whose pod is about to be deleted; not twice, and not when too many end at once.

        Returns when the connection is there, or cannot be had; whoever does not wait for that lets it go on.
        """
        nothing_more = stored.final or not stored.kept
        if nothing_more or job.id in self._listening or len(self._listening) >= _MAX_LISTENING:
            return
        connected = asyncio.Event()
        task = asyncio.create_task(self._apply(job, connected))
        self._listening[job.id] = task
        task.add_done_callback(lambda _: connected.set())
        task.add_done_callback(lambda _: self._listening.pop(job.id, None))
        await connected.wait()

    async def heard(self, job_id: UUID) -> None:
        """Wait a moment for what was begun: the pod is gone, and so is its log's end on its way."""
        if task := self._listening.get(job_id):
            await asyncio.wait([task], timeout=_HEARD_SECONDS)

    async def close(self) -> None:
        """Stop listening."""
        await cancel_all(list(self._listening.values()))

    async def _apply(self, job: Job, connected: asyncio.Event) -> None:
        try:
            has_marks = self._context.settings.tools_image is not None
            tail = tail_that_holds(await find_kept_log(job_id=job.id, context=self._context) or b"")
            async with asyncio.timeout(self._context.settings.grace_seconds + KEEP_SECONDS):
                lines = await read_lines(
                    self._cluster, object_name(job), tail=tail, has_marks=has_marks, follow=True, connected=connected
                )
            content = lines.content(limited=tail is not None)
            sealed = await asyncio.to_thread(seal_log, self._context.cipher, job.id, content)
            now = self._context.clock()
            await self._context.database.execute(storage.logs.ADD_LAST_LINES, job_id=job.id, sealed=sealed, now=now)
        except (Unavailable, LogNotThere, TimeoutError) as error:
            log.info("final_log_not_kept", job_id=str(job.id), error=type(error).__name__)
