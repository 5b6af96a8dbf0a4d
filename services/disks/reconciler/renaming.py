"""A rename as its user waits for it: the table at once, then as many tags as the time allows."""

import asyncio
import time
from collections.abc import Callable
from datetime import datetime, timedelta
from functools import partial
from uuid import uuid4

import msgspec

from services.disks.ebs import Ebs
from services.disks.operations.tags import Renamed, RenameState, TagReport, find_rename, rename_disk, store_report
from services.disks.operations.work import Work, lease_one, postpone
from services.disks.reconciler.tagging import Tagging
from shared.database import Database
from shared.encryption import Cipher
from shared.errors import Conflict
from shared.idempotency import IdempotencyKey, Outcome
from shared.leased_worker import LEASE, LeaseLost, hold
from shared.messaging.outbox import Wakes

_LOOK_AGAIN_SECONDS = 0.1
NO_REPORT = TagReport(updated=0, total=0, errors=[])


class RenameAnswered(msgspec.Struct, frozen=True, kw_only=True):
    """A rename, and how far its tags had come."""

    renamed: Renamed
    report: TagReport


class Renaming:
    """Works the operation of a rename itself; what is not done in time is left to the reconciler.

    Args:
        database: Where the disks are.
        relay: Woken for events.
        ebs: AWS.
        cipher: Encrypts stored answers.
        seconds: How long a user waits at most.
        clock: The time.
    """

    def __init__(
        self, *, database: Database, relay: Wakes, ebs: Ebs, cipher: Cipher, seconds: float,
        clock: Callable[[], datetime],
    ) -> None:  # fmt: skip
        self._database = database
        self._relay = relay
        self._cipher = cipher
        self._seconds = seconds
        self._clock = clock
        self._tagging = Tagging(database=database, ebs=ebs, clock=clock)

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
