"""What time does to disks: claims lapse, snapshots become superfluous, deleted disks are purged, history ends."""

from collections.abc import Callable
from datetime import datetime, timedelta

import structlog

from services.disks.domain.snapshot import Retention
from services.disks.operations.claims import drop_expired_claims
from services.disks.operations.purges import begin_purges, forget_history
from services.disks.operations.snapshots import prune_crowded
from shared.background import Loop
from shared.database import Database
from shared.messaging.outbox import Wakes

log = structlog.get_logger(__name__)

_HISTORY = timedelta(days=90)
_HOUR_SECONDS = 3600.0


def claim_expiry_loop(database: Database, clock: Callable[[], datetime]) -> Loop:
    """Drops claims whose jobs never came."""

    async def turn() -> None:
        dropped = await drop_expired_claims(database, now=clock())
        if dropped:
            log.info("claims_dropped", count=dropped)

    return Loop("claim_expiry", turn, period_seconds=1.0)


def purge_loop(database: Database, reconciler: Wakes, clock: Callable[[], datetime]) -> Loop:
    """Has the disks purged whose time after deletion is over."""

    async def turn() -> None:
        begun = await begin_purges(database, now=clock())
        if begun:
            log.info("purges_begun", count=begun)
            reconciler.wake()

    return Loop("disk_purge", turn, period_seconds=2.0)


def history_loop(database: Database, retention: Retention, clock: Callable[[], datetime]) -> Loop:
    """Lets go of snapshots that a new week made superfluous, and forgets what ended 90 days ago."""

    async def turn() -> None:
        await prune_crowded(database, retention=retention, now=clock())
        await forget_history(database, before=clock() - _HISTORY)

    return Loop("disk_history", turn, period_seconds=_HOUR_SECONDS, stale_seconds=3 * _HOUR_SECONDS)
