"""The end of a pod's log, stored before the pod is deleted."""

import asyncio
from datetime import datetime
from uuid import UUID

import structlog

from services.jobs import storage
from services.jobs.adapters.kubernetes import Cluster, ClusterUnavailable, LogNotThere
from services.jobs.context import Context
from services.jobs.domain.job import Job, KeptLog
from services.jobs.domain.kept_lines import FIRST_TAIL, LastLines, next_tail
from services.jobs.domain.manifests import object_name
from services.jobs.operations.seal import seal_log, unseal_log
from shared.database import to_struct

log = structlog.get_logger(__name__)

KEEP_SECONDS = 2.5
"""For the first look at a log: a dead node holds up no end."""
WHOLE_SECONDS = 4.5
"""For all that is kept of it."""


async def keep_log(*, job: Job, final: bool, cluster: Cluster, now: datetime, context: Context) -> bool:
    """Store the end of the log of the job's pod, in place of what was stored of it, or that it could not be had.

    Read outside of the transaction, at most 4.5 s; idempotent: killed before its commit, it is done again.

    Args:
        job: Whose pod will be, or is being, deleted.
        final: Its command has ended.
        cluster: Where the pod is.
        now: Time of storing.
        context: The service's.

    Returns:
        False: the job has changed meanwhile, and nothing was written.
    """
    seen = {"job_id": job.id, "revision": job.revision}
    try:
        content = await _read_end(cluster, object_name(job), has_marks=context.settings.tools_image is not None)
    except (ClusterUnavailable, LogNotThere, TimeoutError) as error:
        log.info("log_not_kept", job_id=str(job.id), error=type(error).__name__)
        return bool(await context.database.execute(storage.logs.NOTE_TROUBLE, **seen))
    sealed = await asyncio.to_thread(seal_log, context.cipher, job.id, content)
    return bool(await context.database.execute(storage.logs.KEEP_LOG, **seen, sealed=sealed, final=final, now=now))


async def find_log_state(*, job_id: UUID, context: Context) -> KeptLog:
    """How far a job's log is stored."""
    row = await context.database.fetch_one(storage.logs.STATE, job_id=job_id)
    return KeptLog() if row is None else to_struct(row, KeptLog)


async def find_kept_log(*, job_id: UUID, context: Context) -> bytes | None:
    """What was stored of a job's log, with the time of each line; None when nothing was."""
    sealed = await context.database.fetch_value(storage.logs.KEPT_LOG, job_id=job_id)
    return None if sealed is None else await asyncio.to_thread(unseal_log, context.cipher, job_id, sealed)


async def _read_end(cluster: Cluster, pod_name: str, *, has_marks: bool) -> bytes:
    """What is kept of the log, as well as can be had in time: of a long log first a part that is surely quick."""
    content: bytes | None = None
    tail, over = FIRST_TAIL, False
    began = asyncio.get_running_loop().time()
    try:
        async with asyncio.timeout_at(began + KEEP_SECONDS) as limit:
            while not over:
                lines = await read_lines(cluster, pod_name, tail=tail, has_marks=has_marks)
                limit.reschedule(began + WHOLE_SECONDS)
                is_whole = lines.records < tail
                before, tail = tail, next_tail(tail, lines)
                over = is_whole or lines.is_enough or tail == before
                content = lines.content(limited=not is_whole)
    except (ClusterUnavailable, TimeoutError):
        if content is None:
            raise
    return content or b""


async def read_lines(
    cluster: Cluster,
    pod_name: str,
    *,
    tail: int | None,
    has_marks: bool,
    follow: bool = False,
    connected: asyncio.Event | None = None,
) -> LastLines:
    """The last lines of a pod's log; `connected` is set when the connection is there.

    Raises:
        LogNotThere: There is none, or the node has lost it.
        ClusterUnavailable: No answer, or the stream broke.
    """
    lines = LastLines(has_marks=has_marks)
    async with cluster.open_log(pod_name, tail=tail, follow=follow) as chunks:
        if connected is not None:
            connected.set()
        async for chunk in chunks:
            lines.feed(chunk)
    lines.finish()
    if lines.saw_other and not lines.records:
        raise LogNotThere("the node has lost it")
    return lines
