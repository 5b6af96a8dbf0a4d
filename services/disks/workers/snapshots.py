"""Takes the snapshots that are wanted.

CreateSnapshot has no client token. So that none is taken twice, each asking is written down first; after one whose
answer was lost, AWS is looked at by our tag, and only asked again when nothing has shown up for a while: what EC2
made is not always to be seen at once.
"""

from datetime import datetime, timedelta

import structlog

from services.disks.adapters.ec2 import CALL_SECONDS, AwsNotFound, AwsRefused, AwsUnavailable
from services.disks.context import Context
from services.disks.domain.aws_objects import TAG_NAME, AwsSnapshot, SnapshotOrder
from services.disks.domain.operation import Work
from services.disks.domain.retries import LOST_AFTER, poll_after
from services.disks.operations.read import read_snapshot
from services.disks.operations.snapshot import bind_snapshot, complete_snapshot, fail_snapshot, note_asked
from shared.leased_worker import Budget

log = structlog.get_logger(__name__)

_UNSEEN_FOR = timedelta(seconds=30)
"""How long a snapshot that may have been made is looked for before it is asked for again."""
_POLL = timedelta(seconds=1)


async def take_snapshot(context: Context, work: Work, budget: Budget) -> timedelta | None:
    """One pass: find the snapshot or ask for it, and end when it is complete or refused."""
    known = await read_snapshot(context.database, work.id)
    try:
        if known.snapshot_id is not None:
            return await _follow(context, work, budget, known.snapshot_id)
        return await _make(context, work, budget, known.asked_at)
    except AwsRefused as refusal:
        await _fail(context, work, str(refusal))
        return None


async def _follow(context: Context, work: Work, budget: Budget, snapshot_id: str) -> timedelta | None:
    async with budget.call(CALL_SECONDS):
        snapshot = await context.ec2.see_snapshot(snapshot_id)
    if snapshot is None:
        return await _wait_for_unseen(context, work, f"Snapshot {snapshot_id} is no longer in AWS")
    return await _judge(context, work, budget, snapshot)


async def _make(context: Context, work: Work, budget: Budget, asked_at: datetime | None) -> timedelta | None:
    order = SnapshotOrder(
        operation_id=work.id,
        disk_id=work.disk_id,
        user_id=work.user_id,
        disk_name=work.name_now,
        volume_id=work.volume_id or "",
    )
    if asked_at is not None:
        async with budget.call(CALL_SECONDS):
            found = await context.ec2.find_snapshot(order)
        if found is not None:
            return await _bind(context, work, budget, found)
        if context.clock() < asked_at + _UNSEEN_FOR:
            return _POLL
    return await _ask(context, work, budget, order)


async def _ask(context: Context, work: Work, budget: Budget, order: SnapshotOrder) -> timedelta | None:
    if not await note_asked(context.database, work=work, at=context.clock()):
        return None
    try:
        async with budget.call(CALL_SECONDS):
            made = await context.ec2.create_snapshot(order)
    except AwsNotFound:
        await note_asked(context.database, work=work, at=None)
        return await _wait_for_unseen(context, work, f"Volume {order.volume_id} is no longer in AWS")
    except AwsUnavailable as error:
        if not error.may_have_happened:
            await note_asked(context.database, work=work, at=None)
        raise
    return await _bind(context, work, budget, made)


async def _bind(context: Context, work: Work, budget: Budget, snapshot: AwsSnapshot) -> timedelta | None:
    # the tag as it was written, which a rename may have outrun
    name = snapshot.tags.get(TAG_NAME, work.name_now)
    bound = await bind_snapshot(
        context.database, work=work, aws_id=snapshot.snapshot_id, name_tag=name, now=context.clock()
    )
    return await _judge(context, work, budget, snapshot) if bound else None


async def _judge(context: Context, work: Work, budget: Budget, snapshot: AwsSnapshot) -> timedelta | None:
    if snapshot.state == "completed":
        await complete_snapshot(context, work=work, now=context.clock())
        return None
    if snapshot.state == "error":
        async with budget.call(CALL_SECONDS):
            await context.ec2.delete_snapshot(snapshot.snapshot_id)
        await _fail(context, work, "AWS could not take the snapshot")
        return None
    return poll_after(context.clock() - work.created_at)


async def _wait_for_unseen(context: Context, work: Work, error: str) -> timedelta | None:
    if context.clock() < work.created_at + LOST_AFTER:
        return poll_after(context.clock() - work.created_at)
    await _fail(context, work, error)
    return None


async def _fail(context: Context, work: Work, error: str) -> None:
    log.warning("snapshot_refused", operation_id=str(work.id), error=error)
    await fail_snapshot(context, work=work, error=error, now=context.clock())
