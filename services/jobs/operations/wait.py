"""Waiting for the outcome of a request, while holding nothing: no transaction, no connection, no thread."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from uuid import UUID

import structlog

from services.jobs import storage
from services.jobs.context import Context
from services.jobs.domain.job import Job
from shared.errors import Unavailable

log = structlog.get_logger(__name__)

_LOOK_SECONDS = 2.0
"""Between two looks when nothing wakes it: no event tells of some changes, nor of any while NATS is away."""


async def await_job(job_id: UUID, settled: Callable[[Job], bool], seconds: float, context: Context) -> Job | None:
    """The job as soon as `settled` says so of it; None when that is not within `seconds`, or cannot be known now.

    When the service stops before that: the job as it is.

    The request whose outcome it is has been accepted, so an outage here is no error of it.
    """
    try:
        async with asyncio.timeout(seconds), context.wake_ups.of(job_id) as woken:
            return await _settled_job(job_id, settled, woken, context)
    except TimeoutError:
        return None


async def _settled_job(
    job_id: UUID, settled: Callable[[Job], bool], woken: asyncio.Event, context: Context
) -> Job | None:
    job = None
    while not context.wake_ups.closing:
        woken.clear()
        job = await _look(job_id, context)
        if job is not None and settled(job):
            return job
        with suppress(TimeoutError):
            async with asyncio.timeout(_LOOK_SECONDS):
                await woken.wait()
    return job


async def _look(job_id: UUID, context: Context) -> Job | None:
    try:
        row = await context.database.fetch_one(storage.jobs.FIND, job_id=job_id)
    except Unavailable as error:
        log.info("job_not_looked_at", job_id=str(job_id), error=type(error).__name__)
        return None
    return storage.jobs.to_shown_job(row) if row is not None else None
