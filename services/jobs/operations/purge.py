"""Forgetting jobs that ended long ago."""

from datetime import datetime, timedelta

from services.jobs import storage
from services.jobs.context import Context
from shared.database.purge import purge


async def purge_jobs(context: Context, *, now: datetime) -> bool:
    """Delete jobs that ended longer ago than they are kept, with their history, access and logs; True: there are more.

    One that still holds something, such as GPUs of a lost node, is kept until it has given it back.
    """
    kept = timedelta(days=context.settings.job_retention_days)
    return await purge(context.database, storage.jobs.PURGE, before=now - kept)
