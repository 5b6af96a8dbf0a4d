"""Drops the claims of jobs that never came."""

import structlog

from services.disks.context import Context
from services.disks.operations.claim import drop_expired_claims
from shared.background import Loop

log = structlog.get_logger(__name__)


def claim_expiry_loop(context: Context) -> Loop:
    """Drops claims whose jobs never came."""

    async def turn() -> None:
        dropped = await drop_expired_claims(context.database, now=context.clock())
        if dropped:
            log.info("claims_dropped", count=dropped)

    return Loop("claim_expiry", turn, period_seconds=1.0)
