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
from services.jobs.adapters.kubernetes import Cluster, ClusterUnavailable, LogNotThere
from services.jobs.context import Context
from services.jobs.domain.job import ENDED_STATUSES, Job, KeptLog
from services.jobs.domain.log_lines import NOT_KEPT, LineReader, last_lines
from services.jobs.domain.log_tail import TailFinder
from services.jobs.domain.manifests import object_name
from services.jobs.operations.archive_log import find_kept_log, find_log_state
from shared.errors import RateLimited, Unavailable

log = structlog.get_logger(__name__)

_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 0.25, 4.0
_MAX_BREAKS = 3
_TAIL_GROWTH = 8
_RETRY_AFTER_SECONDS = 10
_following = Gauge("gpudev_followed_logs", "Logs that are being followed")


class LogRequest(msgspec.Struct, frozen=True, kw_only=True):
    follow: bool = False
    """Go on until the job has ended."""
    tail: int | None = None
    """The last lines only; None: all that there are."""
    since: datetime | None = None
    """None: from the beginning."""


class TooManyLogs(RateLimited):
    def __init__(self, limit: int, verb: str) -> None:
        text = f"You already {verb} {limit} logs at the same time: end one of them first"
        super().__init__(text, retry_after_seconds=_RETRY_AFTER_SECONDS)


class LogReader:
    """Streams logs.

    Args:
        context: The service's.
        cluster: Where pods live.
    """

    def __init__(self, context: Context, cluster: Cluster) -> None:
        self._context = context
        self._cluster = cluster
        self._open: Counter[tuple[int, bool]] = Counter()

    async def open(self, job: Job, request: LogRequest) -> AsyncGenerator[bytes, None]:
        """The log's text, piece by piece; whoever takes it closes it.

        Raises:
            TooManyLogs: Its user follows, or reads, as many logs as they may.
            Unavailable: It cannot be had now.
        """
        stream = self._counted(job, request)
        await anext(stream)  # up to where the answer can begin: what is wrong until there is an answer of its own
        return stream

    async def _counted(self, job: Job, request: LogRequest) -> AsyncGenerator[bytes, None]:
        settings, kind = self._context.settings, (job.user_id, request.follow)
        limit = settings.max_followed_logs if request.follow else settings.max_read_logs
        if self._open[kind] >= limit:
            raise TooManyLogs(limit, "follow" if request.follow else "read")
        self._open[kind] += 1
        if request.follow:
            _following.inc()
        try:
            async with aclosing(
                self._follow(job, request) if request.follow else self._read_once(job, request)
            ) as texts:
                async for text in texts:
                    yield text
        finally:
            if request.follow:
                _following.dec()
            self._open[kind] -= 1
            self._open += Counter()  # forgets who has none

    async def _follow(self, job: Job, request: LogRequest) -> AsyncGenerator[bytes, None]:
        yield b""
        async with aclosing(self._until_over(job.id, request)) as texts:
            async for text in texts:
                yield text

    async def _until_over(self, job_id: UUID, request: LogRequest) -> AsyncGenerator[bytes, None]:
        lines, tail, pause = _reader(request), request.tail, _FIRST_PAUSE_SECONDS
        async with self._context.wake_ups.of(job_id) as woken:
            while not self._context.wake_ups.closing:
                woken.clear()
                job = await self._look(job_id)
                if job is not None and job.status in ENDED_STATUSES:
                    yield await self._kept(job, lines, tail)
                    return
                began = lines.last_time
                was_empty = job is not None
                if job is not None and job.pod_name is not None:
                    try:
                        was_empty = False
                        tail = await self._find_tail(job, lines, tail)
                        async with aclosing(self._from_pod(job, lines, tail, follow=True)) as texts:
                            async for text in texts:
                                was_empty = True  # connected: without a line it had none, for all that is known
                                yield text
                    except LogNotThere:
                        was_empty = True
                    except ClusterUnavailable as error:
                        log.info("log_stream_broke", job_id=str(job.id), error=type(error).__name__)
                if was_empty or lines.last_time is not None:
                    tail = None  # what there was has been told, or there was nothing: the rest is wanted whole
                    if lines.last_time is None:
                        lines.want_all()
                pause = min(2 * pause, _LONGEST_PAUSE_SECONDS) if lines.last_time == began else _FIRST_PAUSE_SECONDS
                with suppress(TimeoutError):
                    async with asyncio.timeout(pause):
                        await woken.wait()

    async def _read_once(self, job: Job, request: LogRequest) -> AsyncGenerator[bytes, None]:
        lines, tail = _reader(request), request.tail
        for broken in range(1, _MAX_BREAKS + 1):
            if job.status in ENDED_STATUSES or job.pod_name is None:
                break
            try:
                tail = await self._find_tail(job, lines, tail)
                async with aclosing(self._from_pod(job, lines, tail, follow=False)) as texts:
                    async for text in texts:
                        yield text
            except LogNotThere:
                break
            except ClusterUnavailable:
                if broken == _MAX_BREAKS and not (await self._state(job)).kept:
                    raise
                tail = tail if lines.last_time is None else None
            else:
                return
        rest = await self._kept(job, lines, tail)
        yield b""
        yield rest

    async def _find_tail(self, job: Job, lines: LineReader, tail: int | None) -> int | None:
        """Have `lines` begin at the last ones, each of which may be many records; what is still wanted of a tail."""
        if not tail or not self._has_marks:
            return tail
        position, asked, whole = None, tail + 2, False
        while position is None and not whole:
            finder = TailFinder(tail)
            async with self._cluster.open_log(object_name(job), tail=asked) as chunks:
                async for chunk in chunks:
                    finder.feed(chunk)
            whole = finder.records < asked
            position = finder.position(whole=whole)
            asked *= _TAIL_GROWTH
        if position is not None:
            lines.begin_after(position.raw, position.same)
        return None

    @property
    def _has_marks(self) -> bool:
        """Whether the tools write the logs of pods."""
        return self._context.settings.tools_image is not None

    async def _from_pod(
        self, job: Job, lines: LineReader, tail: int | None, *, follow: bool
    ) -> AsyncGenerator[bytes, None]:
        """New text; at first nothing, when the connection is there."""
        lines.take_up(has_marks=self._has_marks)
        since = lines.last_time or lines.since
        # the last line at least, even when none is wanted: from it on is
        wanted = None if tail is None else max(1, tail)
        async with self._cluster.open_log(object_name(job), follow=follow, tail=wanted, since=since) as chunks:
            yield b""
            async for chunk in chunks:
                if text := lines.feed(chunk):
                    yield text
            yield lines.finish()
            if lines.saw_other and lines.last_time is None and since is None:
                raise ClusterUnavailable(kind="log", cause="the node has lost it")

    async def _kept(self, job: Job, lines: LineReader, tail: int | None) -> bytes:
        content = await find_kept_log(job_id=job.id, context=self._context)
        if content is None:
            has_printed = job.launched_at is not None or (await self._state(job)).tries > 0
            return NOT_KEPT if has_printed and job.status in ENDED_STATUSES else b""
        lines.take_up()
        text = lines.feed(content) + lines.finish()
        return last_lines(text, tail)

    async def _state(self, job: Job) -> KeptLog:
        return await find_log_state(job_id=job.id, context=self._context)

    async def _look(self, job_id: UUID) -> Job | None:
        try:
            row = await self._context.database.fetch_one(storage.jobs.FIND, job_id=job_id)
        except Unavailable as error:
            log.info("job_not_looked_at", job_id=str(job_id), error=type(error).__name__)
            return None
        return storage.jobs.to_job(row) if row is not None else None


def _reader(request: LogRequest) -> LineReader:
    return LineReader(request.since, pass_over=request.tail == 0)
