"""Begins the purge of disks whose time after deletion is over."""

from collections.abc import Callable
from datetime import datetime

from services.disks.operations.purges import begin_purges
from services.disks.workers.history import log
from shared.background import Loop
from shared.database import Database
from shared.messaging.outbox import Wakes


def purge_loop(database: Database, reconciler: Wakes, clock: Callable[[], datetime]) -> Loop:
    """Has the disks purged whose time after deletion is over."""

    async def turn() -> None:
        begun = await begin_purges(database, now=clock())
        if begun:
            log.info("purges_begun", count=begun)
            reconciler.wake()

    return Loop("disk_purge", turn, period_seconds=2.0)
