"""Bring the Name tags of a disk's volume and snapshots, which are for people, after its name.

The tables are right at once; tags follow. What a worker writes down is guarded by its lease.
"""

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from uuid import UUID, uuid4

import msgspec
from tenacity import retry, retry_if_exception, stop_after_attempt, wait_chain, wait_fixed

from services.disks import storage
from services.disks.adapters.ec2 import AwsRefused, AwsUnavailable, Ec2
from services.disks.context import Context
from services.disks.domain.aws_objects import TAG_NAME
from services.disks.domain.disk import Disk, DiskState
from services.disks.domain.operation import Action, NewOperation, Work
from services.disks.domain.rename_answer import TagReport
from services.disks.operations.lease import complete_work, still_held
from services.disks.operations.read import lock_disk, read_disk
from services.disks.operations.record import record_operation
from shared.database import Database, Transaction

BATCH = 100
"""Resources of one CreateTags call; EC2 takes up to 1,000 and advises fewer."""
_RESTS_SECONDS = (0.2, 0.5, 1.0)
"""Between attempts at one call that AWS throttles."""
NOTHING_REFUSED: Mapping[str, str] = {}


class StaleTags(msgspec.Struct, frozen=True, kw_only=True):
    """What in AWS has not the disk's name yet."""

    name: str
    """That it should have."""
    aws_ids: list[str]
    """The volume, if it is one of them, comes first."""


async def want_tags(tx: Transaction, disk: Disk, *, now: datetime) -> None:
    """Have the Name tags of a disk brought after its name; nothing new when that is wanted already."""
    if not await tx.fetch_value(
        storage.operations.HAS_OPEN, disk_id=disk.id, action=Action.RENAME, or_action=Action.TAG
    ):
        new = NewOperation(id=uuid4(), disk_id=disk.id, disk_name=disk.name, action=Action.TAG, at=now)
        await record_operation(tx, new)


async def stale_tags(database: Database, *, disk_id: UUID) -> StaleTags:
    """What has not the disk's name yet; nothing when the disk is being purged."""
    disk = await read_disk(database, disk_id)
    rows = await database.fetch_all(storage.snapshots.STALE_TAGS, disk_id=disk_id, name=disk.name)
    aws_ids = [row["snapshot_id"] for row in rows]
    if disk.volume_id is not None and _volume_is_stale(disk):
        aws_ids.insert(0, disk.volume_id)
    return StaleTags(name=disk.name, aws_ids=aws_ids)


def batches(aws_ids: Sequence[str]) -> Iterator[Sequence[str]]:
    """As many at a time as one call tags."""
    for start in range(0, len(aws_ids), BATCH):
        yield aws_ids[start : start + BATCH]


async def write_tags(context: Context, work: Work, aws_ids: Sequence[str], name: str, refused: dict[str, str]) -> bool:
    """Tag these in AWS, and write down which have it; a batch that is refused is halved until the culprits are alone.

    Args:
        context: Of the service.
        work: Whose lease must still hold.
        aws_ids: Of snapshots and the volume, at most `BATCH`.
        name: That they are given.
        refused: Why AWS does not take a tag, by the id of what it is for; is kept up to date.

    Returns:
        False: the lease was lost; no more may be tagged.

    Raises:
        AwsUnavailable: Nothing is known of these; what was tagged before is written down.
    """
    try:
        await _set_name(context.ec2, aws_ids, name)
    except AwsRefused as refusal:
        if len(aws_ids) == 1:
            refused[aws_ids[0]] = refusal.reason
            return True
        middle = len(aws_ids) // 2
        return await write_tags(context, work, aws_ids[:middle], name, refused) and await write_tags(
            context, work, aws_ids[middle:], name, refused
        )
    for aws_id in aws_ids:
        refused.pop(aws_id, None)
    return await _record_tagged(context.database, work=work, name=name, aws_ids=aws_ids)


async def finish_tags(database: Database, *, work: Work, now: datetime) -> bool:
    """End the operation if every tag holds.

    Returns:
        False: something is stale, by a rename in between perhaps, or the lease was lost.
    """
    async with database.transaction() as tx:
        disk = await lock_disk(tx, work.disk_id)
        stale = await tx.fetch_one(storage.snapshots.STALE_TAGS, disk_id=disk.id, name=disk.name)
        if stale is not None or _volume_is_stale(disk):
            return False
        return await complete_work(tx, work=work, now=now)


async def report_tags(
    database: Database, *, disk_id: UUID, refused: Mapping[str, str] = NOTHING_REFUSED, silent: bool
) -> TagReport:
    """How far the tags of a disk have come.

    Args:
        database: Where the rows are.
        disk_id: The disk.
        refused: Why AWS did not take a tag, by the id of what it is for, as far as is known.
        silent: AWS did not answer. Else what is neither tagged nor refused is only too young to have been tagged,
            such as a volume that was made meanwhile, and no error.
    """
    total = await database.fetch_value(storage.snapshots.COUNT_TAGGED, disk_id=disk_id)
    stale = await stale_tags(database, disk_id=disk_id)
    snapshots = [aws_id for aws_id in stale.aws_ids if aws_id.startswith("snap-")]
    errors = [f"{aws_id}: {refused[aws_id]}" for aws_id in stale.aws_ids if aws_id in refused]
    waiting = len(stale.aws_ids) - len(errors)
    if waiting and silent:
        errors.append(f"AWS is unavailable: {waiting} tags are updated in the background")
    return TagReport(updated=max(0, total - len(snapshots)), total=total, errors=errors)


def _had_no_effect(error: BaseException) -> bool:
    return isinstance(error, AwsUnavailable) and not error.may_have_happened


# were everything begun anew at each throttled call, the halving would not get to what is refused
@retry(
    retry=retry_if_exception(_had_no_effect),
    wait=wait_chain(*map(wait_fixed, _RESTS_SECONDS)),
    stop=stop_after_attempt(1 + len(_RESTS_SECONDS)),
    reraise=True,
)
async def _set_name(ec2: Ec2, aws_ids: Sequence[str], name: str) -> None:
    await ec2.set_tags(aws_ids, {TAG_NAME: name})


async def _record_tagged(database: Database, *, work: Work, name: str, aws_ids: Sequence[str]) -> bool:
    async with database.transaction() as tx:
        # before the operation, as everybody does: a newer rename has the disk's lock when it ends this operation
        await tx.execute(storage.disks.LOCK, disk_id=work.disk_id)
        if not await still_held(tx, work):
            return False
        await tx.execute(storage.snapshots.SET_NAME_TAGS, aws_ids=list(aws_ids), name_tag=name)
        if work.volume_id in aws_ids:
            await tx.execute(storage.disks.SET_NAME_TAG, disk_id=work.disk_id, name_tag=name)
    return True


def _volume_is_stale(disk: Disk) -> bool:
    # one that is being purged takes no tag any more, and its work would never end
    return disk.state is DiskState.AVAILABLE and disk.name_tag != disk.name
