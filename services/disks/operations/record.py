"""The one place where what happens to a disk is written: its row and the events about it, in one transaction."""

from datetime import datetime

from services.disks import storage
from services.disks.context import Context
from services.disks.domain.disk import Disk
from services.disks.domain.facts import Fact
from services.disks.domain.operation import NewOperation
from services.disks.domain.transition_table import change
from shared.database import Transaction
from shared.messaging import Draft, record_event
from shared.tracing import current_traceparent


async def record_fact(tx: Transaction, context: Context, disk: Disk, fact: Fact, now: datetime) -> Disk | None:
    """Apply a fact to a disk that this transaction has locked, and write what comes of it.

    Returns:
        The disk after it; None: it changes nothing.

    Raises:
        GpuDevError: The fact is a request, and this is why it is refused.
    """
    changed = change(disk, fact, now)
    if changed is None:
        return None
    values = {f"new_{name}": getattr(changed.disk, name) for name in storage.disks.WRITTEN}
    written = await tx.execute(storage.disks.WRITE, disk_id=disk.id, held_version=disk.version, now=now, **values)
    assert written, "a disk is changed under its lock"  # noqa: S101 - a mistake of ours, never a race
    for event in changed.events:
        await record_event(tx, Draft(data=event, version=changed.disk.version, occurred_at=now), context.outbox)
    return changed.disk


async def record_request(tx: Transaction, context: Context, disk: Disk, fact: Fact, now: datetime) -> Disk:
    """As `record_fact`, for what is done or refused in every phase; the disk after it.

    Raises:
        GpuDevError: Why it is refused.
    """
    changed = await record_fact(tx, context, disk, fact, now)
    assert changed is not None, type(fact)  # noqa: S101 - the table has a cell for it in every phase
    return changed


async def record_operation(tx: Transaction, new: NewOperation) -> None:
    """Write an operation down, to be worked after the commit."""
    await tx.execute(
        storage.operations.INSERT,
        id=new.id,
        disk_id=new.disk_id,
        disk_name=new.disk_name,
        action=new.action,
        job_id=new.job_id,
        new_name=new.new_name,
        lease=0,
        now=new.at,
        worked_until=new.not_before or new.at,
        status=new.status,
        traceparent=current_traceparent(),
    )
