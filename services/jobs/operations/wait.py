"""Waiting for the outcome of a request, while holding nothing: no transaction, no connection, no thread."""

import asyncio
from collections.abc import Awaitable, Callable
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
    """The job as soon as `settled` says so of it; after `seconds`, or when the service stops, as it was seen last.

    None when it could not be seen.

    The request whose outcome it is has been accepted, so an outage here is no error of it.
    """
    job = None

    async def is_settled() -> bool:
        nonlocal job
        job = await _look(job_id, context)
        return job is not None and settled(job)

    await await_change(job_id, is_settled, seconds, context)
    return job


async def await_change(job_id: UUID, has_come: Callable[[], Awaitable[bool]], seconds: float, context: Context) -> None:
    """Ask `has_come` when the job may have changed, until it says so, for `seconds`, or until the service stops."""
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds), context.wake_ups.of(job_id) as woken:
            while not context.wake_ups.closing:
                woken.clear()
                if await has_come():
                    return
                with suppress(TimeoutError):
                    async with asyncio.timeout(_LOOK_SECONDS):
                        await woken.wait()


async def _look(job_id: UUID, context: Context) -> Job | None:
    try:
        row = await context.database.fetch_one(storage.jobs.FIND, job_id=job_id)
    except Unavailable as error:
        log.info("job_not_looked_at", job_id=str(job_id), error=type(error).__name__)
        return None
    return storage.jobs.to_shown_job(row) if row is not None else None
