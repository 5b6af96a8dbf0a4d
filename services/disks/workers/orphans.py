"""Compares AWS with the tables at intervals."""

import structlog

from services.disks.adapters.ec2 import AwsUnavailable
from services.disks.context import Context
from services.disks.operations.orphans import forget_findings, sweep
from shared.background import Loop
from shared.leader_lock import leader_loop

log = structlog.get_logger(__name__)

_LOCK = "swep"
_TURN_SECONDS = 120.0


def sweep_loop(context: Context) -> Loop:
    """One replica sweeps; an outage of AWS puts it off."""

    async def turn() -> None:
        try:
            await sweep(context)
        except AwsUnavailable as error:
            log.warning("sweep_put_off", context=error.context)

    period_seconds = context.settings.sweep_seconds
    return leader_loop(
        "ebs_sweeper",
        turn,
        database=context.database,
        lock=_LOCK,
        period_seconds=period_seconds,
        turn_seconds=_TURN_SECONDS,
        stale_seconds=5 * period_seconds + 300,
        following=forget_findings,
    )
