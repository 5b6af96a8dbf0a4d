"""Rename a disk as its user waits for it: the tables at once, then as many tags as the time allows."""

import asyncio
from datetime import datetime, timedelta
from functools import partial
from uuid import UUID, uuid4

import msgspec

from services.disks import storage
from services.disks.adapters.ec2 import AwsUnavailable
from services.disks.context import Context
from services.disks.domain.facts import RenameRequested
from services.disks.domain.operation import Action, NewOperation, OperationStatus, Work
from services.disks.domain.rename_answer import RenameAnswered, Renamed, TagReport
from services.disks.domain.retries import retry_after
from services.disks.operations.lease import lease_one, postpone
from services.disks.operations.read import lock_named
from services.disks.operations.record import record_operation, record_request
from services.disks.operations.write_name_tags import batches, finish_tags, report_tags, stale_tags, write_tags
from shared.contracts.audit import AuditObject
from shared.database import Database, Transaction, to_struct
from shared.errors import Conflict
from shared.idempotency import IdempotencyKey, Outcome, idempotent
from shared.leased_worker import LEASE, LeaseLost, hold

_LOOK_AGAIN_SECONDS = 0.1
_NO_REPORT = TagReport(updated=0, total=0, errors=[])


class RenameState(msgspec.Struct, frozen=True, kw_only=True):
    """Where the operation of a rename stands."""

    disk_id: UUID
    status: OperationStatus
    created_at: datetime
    report: TagReport | None
    """What was answered; None while that is not known."""


async def rename_disk(
    context: Context, *, user_id: int, name: str, new_name: str, key: IdempotencyKey | None
) -> Outcome[RenameAnswered]:
    """Rename, tag, answer; what is not tagged in time is left to the worker of open operations.

    Raises:
        NotFound: There is no such disk, or it is someone else's.
        DiskDeleted: It is marked for deletion.
        Conflict: A job has it, the user has a disk of the new name, or this very request is still in flight.
    """
    outcome, work = await record_rename(
        context,
        user_id=user_id,
        name=name,
        new_name=new_name,
        operation_id=uuid4(),
        key=key,
        now=context.clock(),
    )
    renamed = outcome.answer
    if outcome.replayed:
        answered = RenameAnswered(renamed=renamed, report=await _answered_before(context, renamed))
        return Outcome(answered, replayed=True)
    report = await _tag_while_waited_for(context, renamed, work)
    await context.database.execute(
        storage.operations.REPORT, operation_id=renamed.operation_id, report=msgspec.to_builtins(report)
    )
    return Outcome(RenameAnswered(renamed=renamed, report=report))


async def record_rename(
    context: Context,
    *,
    user_id: int,
    name: str,
    new_name: str,
    operation_id: UUID,
    key: IdempotencyKey | None,
    now: datetime,
) -> tuple[Outcome[Renamed], Work | None]:
    """Give a disk another name; whoever works the operation brings the tags after it.

    Returns:
        What was done, and the caller's lease on the operation; no lease for a repetition, nor while an older rename's
        worker may have a call under way.

    Raises:
        NotFound: There is none, or it is someone else's.
        DiskDeleted: It is marked for deletion.
        DiskInUse: A job has it.
        DiskExists: The user has a disk of the new name.
    """
    work: Work | None = None
    audited: list[AuditObject] = []

    async def effect(tx: Transaction) -> Renamed:
        nonlocal work
        await tx.execute(storage.disks.LOCK_NAMES, user_id=user_id)
        disk = await lock_named(tx, user_id=user_id, name=name)
        taken = await tx.fetch_value(storage.disks.NAME_IS_TAKEN, user_id=user_id, name=new_name)
        fact = RenameRequested(operation_id=operation_id, new_name=new_name, taken=taken)
        await record_request(tx, context, disk, fact, now)
        new = NewOperation(
            id=operation_id,
            disk_id=disk.id,
            disk_name=name,
            new_name=new_name,
            action=Action.RENAME,
            at=now,
            not_before=await _take_over(tx, disk.id, now),
        )
        await record_operation(tx, new)
        audited.append(AuditObject("disk", str(disk.id), name))
        work = await lease_one(tx, operation_id=operation_id, now=now, lease_for=LEASE)
        return Renamed(operation_id=operation_id, old_name=name, new_name=new_name)

    outcome = await idempotent(context, effect, key=key, answer_type=Renamed, now=now, audit=lambda _: audited)
    return outcome, work


async def _take_over(tx: Transaction, disk_id: UUID, now: datetime) -> datetime:
    """End what older renames had left to do; when their last worker's lease is over."""
    rows = await tx.fetch_all(storage.operations.SUPERSEDE_TAGGING, disk_id=disk_id, now=now)
    # a call of theirs may still be under way, and must not write its old name after ours
    until: datetime = max([now, *(row["worked_until"] for row in rows if row["lease"] > 0)])
    return until


async def _tag_while_waited_for(context: Context, renamed: Renamed, work: Work | None) -> TagReport:
    deadline = context.stopwatch() + context.settings.rename_seconds
    while work is None and context.stopwatch() < deadline:
        await asyncio.sleep(_LOOK_AGAIN_SECONDS)
        state = await _find_rename(context.database, renamed)
        if state is None or state.status.ended:
            break
        work = await lease_one(
            context.database, operation_id=renamed.operation_id, now=context.clock(), lease_for=LEASE
        )
    if work is None:
        return await _progress(context, renamed)
    try:
        report = await hold(partial(_renew, context, work), _tag_until(context, work, deadline))
    except LeaseLost:
        return await _progress(context, renamed)
    await postpone(context.database, work=work, until=context.clock(), failures=0)
    return report


async def _tag_until(context: Context, work: Work, deadline: float) -> TagReport:
    """Tag as much as can be until then, throttling included, and say how far that came."""
    refused: dict[str, str] = {}
    failures, silent = 0, True
    while silent:
        try:
            async with asyncio.timeout(max(0.0, deadline - context.stopwatch())):
                stale = await stale_tags(context.database, disk_id=work.disk_id)
                for batch in batches(stale.aws_ids):
                    if not await write_tags(context, work, batch, stale.name, refused):
                        break
            silent = False
        except (AwsUnavailable, TimeoutError):
            rest = retry_after(failures).total_seconds()
            failures += 1
            if context.stopwatch() + rest >= deadline:
                break
            await asyncio.sleep(rest)
    await finish_tags(context.database, work=work, now=context.clock())
    return await report_tags(context.database, disk_id=work.disk_id, refused=refused, silent=silent)


async def _renew(context: Context, work: Work) -> bool:
    return await postpone(context.database, work=work, until=context.clock() + LEASE, failures=work.failures)


async def _answered_before(context: Context, renamed: Renamed) -> TagReport:
    state = await _find_rename(context.database, renamed)
    if state is None:
        return _NO_REPORT
    if state.report is not None:
        return state.report
    if context.clock() < state.created_at + timedelta(seconds=context.settings.rename_seconds) + LEASE:
        raise Conflict("A request with this Idempotency-Key is still in flight", retry_after_seconds=1)
    # whoever was to answer has died
    return await _progress(context, renamed)


async def _progress(context: Context, renamed: Renamed) -> TagReport:
    state = await _find_rename(context.database, renamed)
    if state is None:
        return _NO_REPORT
    return await report_tags(context.database, disk_id=state.disk_id, silent=not state.status.ended)


async def _find_rename(database: Database, renamed: Renamed) -> RenameState | None:
    row = await database.fetch_one(storage.operations.READ, operation_id=renamed.operation_id)
    return None if row is None else to_struct(row, RenameState)
