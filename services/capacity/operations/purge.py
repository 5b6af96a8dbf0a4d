"""Forgetting jobs that ended long ago."""

from datetime import datetime, timedelta
from functools import partial

from services.capacity.storage.forecasts import PURGE_RUNS
from services.capacity.storage.queue import PURGE_ENTRIES
from shared.background import each_in_turn
from shared.database import Database
from shared.database.purge import purge

ENTRIES_KEPT = timedelta(days=9)
"""Longer than the event stream keeps anything: a late event must still find that its job has ended."""
RUNS_KEPT = timedelta(days=400)
"""So long their usage can be asked about; estimates look at the latest alone."""


async def purge_queue(database: Database, now: datetime) -> bool:
    """Delete the entries of jobs that ended before the oldest event of the stream; True: there are more."""
    return await each_in_turn(
        (
            partial(purge, database, PURGE_RUNS, before=now - RUNS_KEPT),
            partial(purge, database, PURGE_ENTRIES, before=now - ENTRIES_KEPT),
        )
    )
