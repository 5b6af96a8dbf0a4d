"""Keeping the counts of users' jobs short."""

from services.jobs import storage
from services.jobs.context import Context


async def fold_counts(context: Context) -> None:
    """Make one row a status of the counts of every user who has many; one replica at a time does."""
    for row in await context.database.fetch_all(storage.counts.USERS_TO_FOLD):
        async with context.database.transaction() as tx:
            if await tx.fetch_value(storage.counts.TRY_FOLD_LOCK):
                await tx.execute(storage.counts.FOLD, user_id=row["user_id"])
