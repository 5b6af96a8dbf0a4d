"""Begins the purge of disks whose time after deletion is over."""

import structlog

from services.disks.context import Context
from services.disks.operations.purge import begin_purges
from shared.background import Loop
from shared.leader_lock import leader_loop

log = structlog.get_logger(__name__)

_LOCK = "purg"


def purge_loop(context: Context) -> Loop:
    """Has the disks purged whose time after deletion is over."""

    async def turn() -> None:
        begun = await begin_purges(context, now=context.clock())
        if begun:
            log.info("purges_begun", count=begun)

    return leader_loop(
        "disk_purge",
        turn,
        database=context.database,
        lock=_LOCK,
        period_seconds=2.0,
        turn_seconds=30.0,
    )
