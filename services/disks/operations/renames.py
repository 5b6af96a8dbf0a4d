"""A rename as its user waits for it: the table at once, then as many tags as the time allows."""

import asyncio
import time
from collections.abc import Callable
from datetime import datetime, timedelta
from functools import partial
from uuid import UUID, uuid4

import msgspec

from services.disks import storage
from services.disks.adapters.ec2 import Ec2
from services.disks.domain.disk import Action, OperationStatus
from services.disks.domain.refusals import DiskExists, check_not_deleted, check_not_in_use
from services.disks.domain.rename import RenameAnswered, Renamed, TagReport
from services.disks.operations.disks import lock_named
from services.disks.operations.leases import NewOperation, Work, lease_one, postpone, record_operation
from services.disks.workers.tags import Tagging
from shared.contracts.disks import DiskRenamed
from shared.database import Database, Transaction
from shared.encryption import Cipher
from shared.errors import Conflict
from shared.idempotency import IdempotencyKey, Outcome, once
from shared.leased_worker import LEASE, LeaseLost, hold
from shared.messaging import Draft, record_event
from shared.messaging.outbox import Wakes

_LOOK_AGAIN_SECONDS = 0.1
NO_REPORT = TagReport(updated=0, total=0, errors=[])


class RenameState(msgspec.Struct, frozen=True, kw_only=True):
    """Where the operation of a rename stands."""

    disk_id: UUID
    status: OperationStatus
    created_at: datetime
    report: TagReport | None
    """What was answered; None while that is not known."""


class Renaming:
    """Works the operation of a rename itself; what is not done in time is left to the reconciler.

    Args:
        database: Where the disks are.
        relay: Woken for events.
        ec2: AWS.
        cipher: Encrypts stored answers.
        seconds: How long a user waits at most.
        clock: The time.
    """

    def __init__(
        self, *, database: Database, relay: Wakes, ec2: Ec2, cipher: Cipher, seconds: float,
        clock: Callable[[], datetime],
    ) -> None:  # fmt: skip
        self._database = database
        self._relay = relay
        self._cipher = cipher
        self._seconds = seconds
        self._clock = clock
        self._tagging = Tagging(database=database, ec2=ec2, clock=clock)

    async def rename(
        self, *, user_id: int, name: str, new_name: str, key: IdempotencyKey | None
    ) -> Outcome[RenameAnswered]:
        """Rename, tag, answer.

        Raises:
            NotFound: There is no such disk, or it is someone else's.
            DiskDeleted: It is marked for deletion.
            Conflict: A job has it, the user has a disk of the new name, or this very request is still in flight.
        """
        outcome, work = await rename_disk(
            self._database, self._relay, user_id=user_id, name=name, new_name=new_name, operation_id=uuid4(),
            key=key, cipher=self._cipher, now=self._clock(), lease_for=LEASE,
        )  # fmt: skip
        renamed = outcome.answer
        if outcome.replayed:
            return Outcome(RenameAnswered(renamed=renamed, report=await self._answered(renamed)), replayed=True)
        report = await self._tag(renamed, work)
        await store_report(self._database, operation_id=renamed.operation_id, report=report)
        return Outcome(RenameAnswered(renamed=renamed, report=report))

    async def _tag(self, renamed: Renamed, work: Work | None) -> TagReport:
        deadline = time.monotonic() + self._seconds
        state = None
        while work is None and time.monotonic() < deadline:
            await asyncio.sleep(_LOOK_AGAIN_SECONDS)
            state = await find_rename(self._database, operation_id=renamed.operation_id)
            if state is None or state.status.ended:
                break
            work = await lease_one(
                self._database, operation_id=renamed.operation_id, now=self._clock(), lease_for=LEASE
            )
        if work is None:
            return NO_REPORT if state is None else await self._progress(state)
        tagging = self._tagging.report(work, seconds=max(0.0, deadline - time.monotonic()))
        try:
            report = await hold(partial(self._renew, work), tagging)
        except LeaseLost:
            state = await find_rename(self._database, operation_id=renamed.operation_id)
            return NO_REPORT if state is None else await self._progress(state)
        await postpone(self._database, work=work, until=self._clock(), failures=0)
        return report

    async def _renew(self, work: Work) -> bool:
        return await postpone(self._database, work=work, until=self._clock() + LEASE, failures=work.failures)

    async def _answered(self, renamed: Renamed) -> TagReport:
        state = await find_rename(self._database, operation_id=renamed.operation_id)
        if state is None:
            return NO_REPORT
        if state.report is not None:
            return state.report
        if self._clock() < state.created_at + timedelta(seconds=self._seconds) + LEASE:
            raise Conflict("A request with this Idempotency-Key is still in flight", retry_after_seconds=1)
        # whoever was to answer has died
        return await self._progress(state)

    async def _progress(self, state: RenameState) -> TagReport:
        return await self._tagging.progress(state.disk_id, silent=not state.status.ended)


async def rename_disk(
    database: Database, relay: Wakes, *, user_id: int, name: str, new_name: str, operation_id: UUID,
    key: IdempotencyKey | None, cipher: Cipher, now: datetime, lease_for: timedelta,
) -> tuple[Outcome[Renamed], Work | None]:  # fmt: skip
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
    async with database.transaction() as tx:

        async def effect() -> Renamed:
            await tx.execute(storage.disks.LOCK_NAMES, user_id=user_id)
            disk = await lock_named(tx, user_id=user_id, name=name)
            check_not_deleted(disk)
            check_not_in_use(disk)
            if await tx.fetch_value(storage.disks.NAME_IS_TAKEN, user_id=user_id, name=new_name):
                raise DiskExists(new_name)
            version = await tx.fetch_value(storage.disks.RENAME, disk_id=disk.id, new_name=new_name, now=now)
            event = DiskRenamed(
                disk_id=disk.id, user_id=user_id, disk_name=new_name, operation_id=operation_id, old_name=name
            )
            await record_event(tx, Draft(data=event, version=version, occurred_at=now), relay)
            rename = NewOperation(
                id=operation_id, disk_id=disk.id, disk_name=name, new_name=new_name, action=Action.RENAME, at=now,
                not_before=await _take_over(tx, disk.id, now),
            )  # fmt: skip
            await record_operation(tx, rename)
            return Renamed(operation_id=operation_id, old_name=name, new_name=new_name)

        outcome = await once(tx, effect, key=key, answer_type=Renamed, cipher=cipher, now=now)
        if outcome.replayed:
            return outcome, None
        return outcome, await lease_one(tx, operation_id=operation_id, now=now, lease_for=lease_for)


async def store_report(database: Database, *, operation_id: UUID, report: TagReport) -> None:
    """Keep what a rename was answered, for repetitions of the request."""
    await database.execute(storage.operations.REPORT, operation_id=operation_id, report=msgspec.to_builtins(report))


async def find_rename(database: Database, *, operation_id: UUID) -> RenameState | None:
    """Where a rename stands; None when it is forgotten."""
    row = await database.fetch_one(storage.operations.READ, operation_id=operation_id)
    return None if row is None else msgspec.convert(
        {name: row[name] for name in RenameState.__struct_fields__}, RenameState
    )  # fmt: skip


async def _take_over(tx: Transaction, disk_id: UUID, now: datetime) -> datetime:
    """End what older renames had left to do; when their last worker's lease is over."""
    rows = await tx.fetch_all(storage.operations.SUPERSEDE_TAGGING, disk_id=disk_id, now=now)
    # a call of theirs may still be under way, and must not write its old name after ours
    until: datetime = max([now, *(row["worked_until"] for row in rows if row["lease"] > 0)])
    return until
