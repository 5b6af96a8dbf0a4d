"""What operations and workers work with."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from services.jobs.settings import JobsSettings
from shared.clock import Clock
from shared.contracts.events import SUBJECT_ROOT
from shared.database import Database
from shared.database.group_commit import GroupCommit
from shared.encryption import Cipher
from shared.errors import BrokerUnavailable
from shared.messaging import Broker
from shared.messaging.broker import UNREACHABLE
from shared.messaging.outbox import Wakes


class WakeUps:
    """Wakes those who wait for a job: of commits here at once, of other replicas' by their events.

    Only a wake: whoever is woken looks at the row.
    """

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._waiting: dict[UUID, set[asyncio.Event]] = {}
        self.held_answers: Counter[int] = Counter()
        """By user, those that are held until a job changes."""
        self.closing = False

    @property
    def waiting(self) -> int:
        """Jobs that someone waits for."""
        return len(self._waiting)

    def wake(self, job_id: UUID) -> None:
        """Something about the job has changed."""
        for woken in self._waiting.get(job_id, ()):
            woken.set()

    async def close(self) -> None:
        """The service stops: nobody waits any longer."""
        self.closing = True
        for job_id in self._waiting:
            self.wake(job_id)

    @asynccontextmanager
    async def of(self, job_id: UUID) -> AsyncIterator[asyncio.Event]:
        """An event that is set at each change of the job, for the length of the block."""
        woken = asyncio.Event()
        subscription = None
        self._waiting.setdefault(job_id, set()).add(woken)
        try:
            subscription = await self._listen(job_id)
            yield woken
        finally:
            self._forget(job_id, woken)
            if subscription is not None:
                with suppress(*UNREACHABLE):
                    await subscription.unsubscribe()

    def _forget(self, job_id: UUID, woken: asyncio.Event) -> None:
        self._waiting[job_id].discard(woken)
        if not self._waiting[job_id]:
            del self._waiting[job_id]

    async def _listen(self, job_id: UUID) -> Any:
        async def on_event(_: Any) -> None:
            self.wake(job_id)

        try:
            return await self._broker.client.subscribe(f"{SUBJECT_ROOT}.jobs.*.{job_id}", cb=on_event)
        except (*UNREACHABLE, BrokerUnavailable):
            return None


class Hints:
    """Jobs that are worth a look now. Only a hint: losing one costs time, never truth."""

    def __init__(self) -> None:
        self.waiting: set[UUID] = set()
        self._listeners: list[Callable[[], None]] = []
        self._access_listeners: list[Callable[[], None]] = []

    def on_hint(self, listener: Callable[[], None]) -> None:
        """Call `listener` after each hint."""
        self._listeners.append(listener)

    def on_access_due(self, listener: Callable[[], None]) -> None:
        """Call `listener` when something is to be brought into a job's pod."""
        self._access_listeners.append(listener)

    def add(self, job_id: UUID) -> None:
        """Look at this job soon."""
        self.waiting.add(job_id)
        for listener in self._listeners:
            listener()

    def access_due(self) -> None:
        """Something is to be brought into a job's pod now."""
        for listener in self._access_listeners:
            listener()


@dataclass(frozen=True, kw_only=True)
class Context:
    database: Database
    outbox: Wakes
    """Woken when an event was committed."""
    broker: Broker
    cipher: Cipher
    settings: JobsSettings
    clock: Clock
    wake_ups: WakeUps
    """Of those who wait for a job to change."""
    submissions: GroupCommit[Any, Any]
    """Writes new jobs that come at once together."""
    hints: Hints = field(default_factory=Hints)
    """For the workers: jobs that are worth a look now."""
