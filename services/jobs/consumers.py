"""Events of other services: each becomes one fact, in the transaction of its inbox row."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from services.jobs.context import Context
from services.jobs.domain.facts import DiskFailed, DiskReady, Granted, QueueMoved, Revoked
from services.jobs.operations.cancel import note_disabled
from services.jobs.operations.transition import QueueMove, apply_event, apply_queue_moves
from shared.contracts.auth import UserDisabled, UserEnabled
from shared.contracts.capacity import JobQueued, LeaseGranted, LeaseRevoked
from shared.contracts.disks import DiskClaimed, DiskOperationFailed
from shared.contracts.events import CloudEvent
from shared.database import Transaction
from shared.messaging import AnySubscription, BatchSubscription, Subscription


@dataclass(frozen=True)
class Consumers:
    """Handlers of other services' events."""

    context: Context

    def subscriptions(self) -> Sequence[AnySubscription]:
        """What the service listens to."""
        return (
            BatchSubscription(JobQueued, self.on_queued),
            Subscription(LeaseGranted, self.on_granted),
            Subscription(LeaseRevoked, self.on_revoked),
            Subscription(DiskClaimed, self.on_disk_claimed),
            Subscription(DiskOperationFailed, self.on_disk_failed),
            Subscription(UserDisabled, self.on_user_disabled),
            Subscription(UserEnabled, self.on_user_enabled),
        )

    async def on_queued(self, transaction: Transaction, received: Sequence[tuple[JobQueued, CloudEvent]]) -> None:
        """Positions in the queue are what capacity says."""
        moves = [
            QueueMove(data.job_id, QueueMoved(data.position, data.estimated_start_at, data.reason), event.sequence)
            for data, event in received
        ]
        await apply_queue_moves(transaction=transaction, moves=moves, now=self.context.clock(), context=self.context)

    async def on_granted(self, transaction: Transaction, data: LeaseGranted, event: CloudEvent) -> None:
        """It has GPUs: the intent to make its pod is committed here, before any pod exists."""
        await self._apply(transaction, data.job_id, Granted(data.epoch, data.node), event.sequence)

    async def on_revoked(self, transaction: Transaction, data: LeaseRevoked, event: CloudEvent) -> None:
        """Its GPUs are gone."""
        await self._apply(transaction, data.job_id, Revoked(data.epoch, data.reason), event.sequence)

    async def on_disk_claimed(self, transaction: Transaction, data: DiskClaimed, _: CloudEvent) -> None:
        """Its disk can be used."""
        await self._apply(transaction, data.job_id, DiskReady(data.volume_id, data.availability_zone), None)

    async def on_disk_failed(self, transaction: Transaction, data: DiskOperationFailed, _: CloudEvent) -> None:
        """Its disk will never be there."""
        if data.job_id is not None:
            await self._apply(transaction, data.job_id, DiskFailed(data.error), None)

    async def on_user_disabled(self, transaction: Transaction, data: UserDisabled, event: CloudEvent) -> None:
        """The user's jobs end, after the grace that is configured."""
        await note_disabled(
            transaction=transaction,
            user_id=data.user_id,
            disabled_at=data.disabled_at,
            sequence=event.sequence,
            context=self.context,
        )

    async def on_user_enabled(self, transaction: Transaction, data: UserEnabled, event: CloudEvent) -> None:
        """Jobs that have not ended by then go on."""
        await note_disabled(
            transaction=transaction,
            user_id=data.user_id,
            disabled_at=None,
            sequence=event.sequence,
            context=self.context,
        )

    async def _apply(self, transaction: Transaction, job_id: Any, fact: Any, sequence: int | None) -> None:
        await apply_event(
            transaction=transaction,
            job_id=job_id,
            fact=fact,
            sequence=sequence,
            now=self.context.clock(),
            context=self.context,
        )
