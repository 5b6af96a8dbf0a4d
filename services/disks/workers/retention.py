"""Lets go of snapshots that time has made superfluous, and of what ended long ago."""

from datetime import timedelta

from services.disks.context import Context
from services.disks.operations.prune import prune_crowded
from services.disks.operations.purge import forget_history
from shared.background import Loop, each_in_turn
from shared.leader_lock import leader_loop

_LOCK = "hist"
_HISTORY = timedelta(days=90)
_HOUR_SECONDS = 3600.0


def history_loop(context: Context) -> Loop:
    """Lets go of snapshots that a new week made superfluous, and forgets what ended 90 days ago."""

    async def prune() -> None:
        await prune_crowded(context, now=context.clock())

    async def forget() -> bool:
        return await forget_history(context.database, before=context.clock() - _HISTORY)

    async def turn() -> bool:
        return await each_in_turn((prune, forget))

    return leader_loop(
        "disk_history",
        turn,
        database=context.database,
        lock=_LOCK,
        period_seconds=_HOUR_SECONDS,
        turn_seconds=120.0,
        stale_seconds=3 * _HOUR_SECONDS,
    )
