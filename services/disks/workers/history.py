"""Lets go of snapshots that time has made superfluous, and of what ended long ago."""

from collections.abc import Callable
from datetime import datetime, timedelta

import structlog

from services.disks.domain.snapshot import Retention
from services.disks.operations.purges import forget_history
from services.disks.operations.snapshots import prune_crowded
from shared.background import Loop
from shared.database import Database

log = structlog.get_logger(__name__)


_HISTORY = timedelta(days=90)


_HOUR_SECONDS = 3600.0


def history_loop(database: Database, retention: Retention, clock: Callable[[], datetime]) -> Loop:
    """Lets go of snapshots that a new week made superfluous, and forgets what ended 90 days ago."""

    async def turn() -> None:
        await prune_crowded(database, retention=retention, now=clock())
        await forget_history(database, before=clock() - _HISTORY)

    return Loop("disk_history", turn, period_seconds=_HOUR_SECONDS, stale_seconds=3 * _HOUR_SECONDS)
