"""Forgetting jobs that ended long ago."""

from datetime import datetime, timedelta

from services.capacity.storage.queue import PURGE_PLACES, PURGE_RUNS
from shared.database import Executor

RETENTION = timedelta(days=9)
"""Longer than the event stream keeps anything: a late event of an ended job must find its tombstone."""

MEMORY = timedelta(days=90)
"""For so long the lengths of ended jobs are kept for the estimates."""


async def purge_places(database: Executor, now: datetime) -> int:
    """Delete the places of jobs that ended before the stream's oldest event; how many."""
    await database.execute(PURGE_RUNS, before=now - MEMORY)
    return await database.execute(PURGE_PLACES, before=now - RETENTION)
