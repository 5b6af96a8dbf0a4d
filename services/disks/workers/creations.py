"""Makes the volume of a disk that is to be made."""

from datetime import timedelta

import structlog

from services.disks.adapters.ec2 import CALL_SECONDS, AwsNotFound, AwsRefused
from services.disks.context import Context
from services.disks.domain.aws_objects import AwsVolume, VolumeOrder
from services.disks.domain.operation import Work
from services.disks.domain.retries import LOST_AFTER, poll_after
from services.disks.operations.create import complete_creation, fail_creation
from shared.leased_worker import Budget

log = structlog.get_logger(__name__)

_USABLE = ("available", "in-use")


async def make_volume(context: Context, work: Work, budget: Budget) -> timedelta | None:
    """One pass: find the volume or ask for it, and end when it is there or refused."""
    try:
        volume = await _find_or_create(context, work, budget)
    except AwsRefused as refusal:
        if _may_show_up(context, work, refusal):
            return poll_after(context.clock() - work.created_at)
        await _fail(context, work, str(refusal))
        return None
    if volume.state in _USABLE:
        await complete_creation(
            context,
            work=work,
            volume_id=volume.volume_id,
            availability_zone=volume.availability_zone,
            now=context.clock(),
        )
        return None
    if volume.state == "error":
        async with budget.call(CALL_SECONDS):
            await context.ec2.delete_volume(volume.volume_id)
        await _fail(context, work, "AWS could not make the volume")
        return None
    return poll_after(context.clock() - work.created_at)


async def _find_or_create(context: Context, work: Work, budget: Budget) -> AwsVolume:
    order = VolumeOrder(
        operation_id=work.id,
        disk_id=work.disk_id,
        user_id=work.user_id,
        disk_name=work.disk_name,
        size_gb=work.size_gb,
        availability_zone=work.availability_zone,
        source_snapshot_id=work.source_snapshot_id,
        marks=context.csi_tags,
    )
    # AWS forgets client tokens after a day; the tag stays. A volume too young to be seen is what the token is for.
    if work.lease > 1:
        async with budget.call(CALL_SECONDS):
            found = await context.ec2.find_volume(order)
        if found is not None:
            return found
    async with budget.call(CALL_SECONDS):
        return await context.ec2.create_volume(order)


def _may_show_up(context: Context, work: Work, refusal: AwsRefused) -> bool:
    """A snapshot that was seen complete may still be unknown where the volume is made."""
    unseen = isinstance(refusal, AwsNotFound) and work.source_snapshot_id is not None
    return unseen and context.clock() < work.created_at + LOST_AFTER


async def _fail(context: Context, work: Work, error: str) -> None:
    log.warning("disk_creation_refused", operation_id=str(work.id), error=error)
    await fail_creation(context, work=work, error=error, now=context.clock())
