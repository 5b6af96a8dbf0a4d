"""A job's log as a stream: from its pod while there is one, afterwards from what was stored of it.

A stream holds one connection to Kubernetes and nothing else: no thread, no connection to the database. It reads no
faster than its client takes.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress
from datetime import datetime
from uuid import UUID

import msgspec
import structlog
from prometheus_client import Gauge

from services.jobs import storage
from services.jobs.cluster import Cluster, ClusterUnavailable, LogNotThere
from services.jobs.domain.job import ENDED_STATUSES, Job
from services.jobs.domain.log_lines import LineReader, last_lines
from services.jobs.domain.manifests import object_name
from services.jobs.kept_logs import find_kept_log
from services.jobs.resources import Resources
from shared.errors import RateLimited, Unavailable

log = structlog.get_logger(__name__)

_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 0.25, 4.0
_MAX_BREAKS = 3
_RETRY_AFTER_SECONDS = 10
_following = Gauge("gpudev_followed_logs", "Logs that are being followed")


class LogRequest(msgspec.Struct, frozen=True, kw_only=True):
    follow: bool = False
    """Go on until the job has ended."""
    tail: int | None = None
    """The last lines only; None: all that there are."""
    since: datetime | None = None
    """None: from the beginning."""


class TooManyFollowed(RateLimited):
    def __init__(self, limit: int) -> None:
        text = f"You follow {limit} logs at once already: end one of them first"
        super().__init__(text, retry_after_seconds=_RETRY_AFTER_SECONDS)


class LogReader:
    """Streams logs.

    Args:
        resources: The service's.
        cluster: Where pods live.
    """

    def __init__(self, resources: Resources, cluster: Cluster) -> None:
        self._resources = resources
        self._cluster = cluster
        self._followed: Counter[int] = Counter()

    async def open(self, job: Job, request: LogRequest) -> AsyncGenerator[bytes, None]:
        """The log's text, piece by piece; whoever takes it closes it.

        Raises:
            TooManyFollowed: Its user follows as many logs as he may.
            Unavailable: It cannot be had now.
        """
        stream = self._follow(job, request) if request.follow else self._tell(job, request)
        await anext(stream)  # up to where the answer can begin: what is wrong until there is an answer of its own
        return stream

    async def _follow(self, job: Job, request: LogRequest) -> AsyncGenerator[bytes, None]:
        limit = self._resources.settings.max_followed_logs
        if self._followed[job.user_id] >= limit:
            raise TooManyFollowed(limit)
        self._followed[job.user_id] += 1
        _following.inc()
        try:
            yield b""
            async with aclosing(self._until_over(job.id, request)) as texts:
                async for text in texts:
                    yield text
        finally:
            _following.dec()
            self._followed[job.user_id] -= 1
            self._followed += Counter()  # forgets who follows none

    async def _until_over(self, job_id: UUID, request: LogRequest) -> AsyncGenerator[bytes, None]:
        lines, tail, pause = LineReader(request.since), request.tail, _FIRST_PAUSE_SECONDS
        async with self._resources.changes.of(job_id) as woken:
            while not self._resources.changes.closing:
                woken.clear()
                job = await self._look(job_id)
                if job is not None and job.status in ENDED_STATUSES:
                    lines.take_up()
                    yield await self._kept(job_id, lines, tail)
                    return
                began = lines.last_time
                if job is not None and job.pod_name is not None:
                    async with aclosing(self._try_pod(job, lines, tail)) as texts:
                        async for text in texts:
                            yield text
                if lines.last_time is not None or (job is not None and job.launched_at is None):
                    tail = None  # what there was has been told, or there was nothing: the rest is wanted whole
                pause = min(2 * pause, _LONGEST_PAUSE_SECONDS) if lines.last_time == began else _FIRST_PAUSE_SECONDS
                with suppress(TimeoutError):
                    async with asyncio.timeout(pause):
                        await woken.wait()

    async def _try_pod(self, job: Job, lines: LineReader, tail: int | None) -> AsyncGenerator[bytes, None]:
        """New text until the container ends, or as long as the connection lasts."""
        lines.take_up()
        with suppress(ClusterUnavailable, LogNotThere):
            async with aclosing(self._from_pod(job, lines, tail, follow=True)) as texts:
                async for text in texts:
                    yield text

    async def _tell(self, job: Job, request: LogRequest) -> AsyncGenerator[bytes, None]:
        lines, tail = LineReader(request.since), request.tail
        for broken in range(1, _MAX_BREAKS + 1):
            if job.status in ENDED_STATUSES or job.pod_name is None:
                break
            lines.take_up()
            try:
                async with aclosing(self._from_pod(job, lines, tail, follow=False)) as texts:
                    async for text in texts:
                        yield text
            except LogNotThere:
                break
            except ClusterUnavailable:
                if broken == _MAX_BREAKS and not job.log_kept:
                    raise
                tail = tail if lines.last_time is None else None
            else:
                return
        lines.take_up()
        rest = await self._kept(job.id, lines, tail)
        yield b""
        yield rest

    async def _from_pod(
        self, job: Job, lines: LineReader, tail: int | None, *, follow: bool
    ) -> AsyncGenerator[bytes, None]:
        """New text; at first nothing, when the connection is there."""
        since = lines.last_time or lines.since
        async with self._cluster.open_log(object_name(job), follow=follow, tail=tail, since=since) as chunks:
            yield b""
            async for chunk in chunks:
                if text := lines.feed(chunk):
                    yield text
            yield lines.finish()

    async def _kept(self, job_id: UUID, lines: LineReader, tail: int | None) -> bytes:
        content = await find_kept_log(job_id=job_id, resources=self._resources)
        text = lines.feed(content) + lines.finish()
        return last_lines(text, tail)

    async def _look(self, job_id: UUID) -> Job | None:
        try:
            row = await self._resources.database.fetch_one(storage.FIND, job_id=job_id)
        except Unavailable as error:
            log.info("job_not_looked_at", job_id=str(job_id), error=type(error).__name__)
            return None
        return storage.to_job(row) if row is not None else None
