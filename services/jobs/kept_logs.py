"""Logs of pods that are gone: stored before the pod is deleted, with what its command prints on being told to end."""

import asyncio
import zlib
from datetime import UTC, datetime
from uuid import UUID

import structlog

from services.jobs import storage
from services.jobs.cluster import Cluster, ClusterUnavailable, LogNotThere
from services.jobs.domain.facts import LogKept, LogNotKept
from services.jobs.domain.job import Job
from services.jobs.domain.kept_lines import FIRST_TAIL, LastLines, next_tail, tail_that_holds
from services.jobs.domain.manifests import object_name
from services.jobs.domain.table import change
from services.jobs.operations import StaleJob, apply_fact, write_change
from services.jobs.resources import Resources
from shared.background import cancel_all
from shared.encryption import Cipher
from shared.errors import Unavailable

log = structlog.get_logger(__name__)

_KEEP_SECONDS = 2.5
"""For the first look at a log: a dead node holds up no end."""
_WHOLE_SECONDS = 4.5
"""For all that is kept of it; together with what else a pass does it must not exceed its time."""
_HEARD_SECONDS = 1.0
_MAX_LISTENING = 32
"""Each holds a kept log in memory."""


async def keep_log(*, job: Job, final: bool, cluster: Cluster, now: datetime, resources: Resources) -> Job | None:
    """Store the end of the log of the job's pod, in place of what was stored of it.

    Read outside of the transaction, at most 4.5 s; idempotent: killed before its commit, it is done again.

    Args:
        job: Whose pod will be, or is being, deleted.
        final: Its command has ended.
        cluster: Where the pod is.
        now: Time of storing.
        resources: The service's.

    Returns:
        The changed job, also when the log was not to be had; None when it has changed meanwhile.
    """
    try:
        content = await _read_end(cluster, object_name(job), has_marks=resources.settings.tools_image is not None)
    except (ClusterUnavailable, LogNotThere, TimeoutError) as error:
        log.info("log_not_kept", job_id=str(job.id), error=type(error).__name__)
        return await apply_fact(job=job, fact=LogNotKept(job.epoch), now=now, resources=resources)
    changed = change(job, LogKept(job.epoch, final), now)
    if changed is None:
        return None
    sealed = await asyncio.to_thread(_seal, resources.cipher, job.id, content)
    try:
        async with resources.database.transaction() as transaction:
            await transaction.execute(storage.KEEP_LOG, job_id=job.id, sealed=sealed, now=now)
            written = await write_change(
                transaction=transaction, before=job, changed=changed, now=now, resources=resources
            )
    except StaleJob:
        return None
    return written.job


class LastWords:
    """Takes in what commands print on being told to end, while they end.

    What was stored before the deletion is the promise; this is added to it where the replica lives to see it.

    Args:
        cluster: Where the pods are.
        resources: The service's.
    """

    def __init__(self, cluster: Cluster, resources: Resources) -> None:
        self._cluster = cluster
        self._resources = resources
        self._listening: dict[UUID, asyncio.Task[None]] = {}

    async def listen(self, job: Job) -> None:
        """Begin with a job whose pod is about to be deleted; not twice, and not when too many end at once."""
        nothing_more = job.log_final or not job.log_kept
        if nothing_more or job.id in self._listening or len(self._listening) >= _MAX_LISTENING:
            return
        connected = asyncio.Event()
        task = asyncio.create_task(self._take_in(job, connected))
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

    async def _take_in(self, job: Job, connected: asyncio.Event) -> None:
        try:
            has_marks = self._resources.settings.tools_image is not None
            tail = tail_that_holds(await find_kept_log(job_id=job.id, resources=self._resources) or b"")
            async with asyncio.timeout(self._resources.settings.grace_seconds + _KEEP_SECONDS):
                lines = await _read(
                    self._cluster, object_name(job), tail=tail, has_marks=has_marks, follow=True, connected=connected
                )
            content = lines.content(limited=tail is not None)
            sealed = await asyncio.to_thread(_seal, self._resources.cipher, job.id, content)
            now = datetime.now(UTC)
            await self._resources.database.execute(storage.KEEP_LOG, job_id=job.id, sealed=sealed, now=now)
        except (Unavailable, LogNotThere, TimeoutError) as error:
            log.info("last_words_not_kept", job_id=str(job.id), error=type(error).__name__)


async def find_kept_log(*, job_id: UUID, resources: Resources) -> bytes | None:
    """What was stored of a job's log, with the time of each line; None when nothing was."""
    sealed = await resources.database.fetch_value(storage.KEPT_LOG, job_id=job_id)
    return None if sealed is None else await asyncio.to_thread(_unseal, resources.cipher, job_id, sealed)


async def _read_end(cluster: Cluster, pod_name: str, *, has_marks: bool) -> bytes:
    """What is kept of the log, as well as can be had in time: of a long log first a part that is surely quick."""
    content: bytes | None = None
    tail, over = FIRST_TAIL, False
    began = asyncio.get_running_loop().time()
    try:
        async with asyncio.timeout_at(began + _KEEP_SECONDS) as limit:
            while not over:
                lines = await _read(cluster, pod_name, tail=tail, has_marks=has_marks)
                limit.reschedule(began + _WHOLE_SECONDS)
                is_whole = lines.records < tail
                before, tail = tail, next_tail(tail, lines)
                over = is_whole or lines.is_enough or tail == before
                content = lines.content(limited=not is_whole)
    except (ClusterUnavailable, TimeoutError):
        if content is None:
            raise
    return content or b""


async def _read(
    cluster: Cluster,
    pod_name: str,
    *,
    tail: int | None,
    has_marks: bool,
    follow: bool = False,
    connected: asyncio.Event | None = None,
) -> LastLines:
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


def _seal(cipher: Cipher, job_id: UUID, content: bytes) -> bytes:
    return cipher.encrypt(zlib.compress(content, zlib.Z_BEST_COMPRESSION), row=_row(job_id))


def _unseal(cipher: Cipher, job_id: UUID, sealed: bytes) -> bytes:
    return zlib.decompress(cipher.decrypt(sealed, row=_row(job_id)))


def _row(job_id: UUID) -> str:
    return f"job_logs.sealed:{job_id}"
