"""Brings the Name tags of a disk's volume and snapshots after its name."""

from datetime import timedelta

import structlog

from services.disks.adapters.ec2 import CALL_SECONDS
from services.disks.context import Context
from services.disks.domain.operation import Work
from services.disks.domain.retries import poll_after
from services.disks.operations.write_name_tags import batches, finish_tags, stale_tags, write_tags
from shared.leased_worker import Budget

log = structlog.get_logger(__name__)

_AT_ONCE = timedelta(0)


async def bring_tags(context: Context, work: Work, budget: Budget) -> timedelta | None:
    """One pass over what is stale; what is refused is tried again, until it holds."""
    stale = await stale_tags(context.database, disk_id=work.disk_id)
    refused: dict[str, str] = {}
    for batch in batches(stale.aws_ids):
        if budget.left_seconds < CALL_SECONDS:
            return _AT_ONCE
        if not await write_tags(context, work, batch, stale.name, refused):
            return None
    if refused:
        log.warning("tags_refused", disk_id=str(work.disk_id), count=len(refused), first=next(iter(refused)))
        return poll_after(context.clock() - work.created_at)
    return None if await finish_tags(context.database, work=work, now=context.clock()) else _AT_ONCE
