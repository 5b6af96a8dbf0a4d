"""Drops the claims of jobs that never came."""

from collections.abc import Callable
from datetime import datetime

from services.disks.operations.claims import drop_expired_claims
from services.disks.workers.history import log
from shared.background import Loop
from shared.database import Database


def claim_expiry_loop(database: Database, clock: Callable[[], datetime]) -> Loop:
    """Drops claims whose jobs never came."""

    async def turn() -> None:
        dropped = await drop_expired_claims(database, now=clock())
        if dropped:
            log.info("claims_dropped", count=dropped)

    return Loop("claim_expiry", turn, period_seconds=1.0)
