"""Events that come in: each becomes one fact, or messages for webhooks, in the transaction of its inbox row."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from services.jobs.context import Context
from services.jobs.domain.facts import DiskFailed, DiskReady, Granted, QueueMoved, Revoked
from services.jobs.domain.webhook import TOLD_EVENTS, is_turn_near
from services.jobs.operations.cancel import note_disabled
from services.jobs.operations.transition import QueueMove, apply_event, apply_queue_moves
from services.jobs.operations.webhook_messages import message_of, record_messages, turn_near_message
from shared.contracts.asyncapi import event_name, event_types
from shared.contracts.auth import UserDisabled, UserEnabled
from shared.contracts.capacity import JobQueued, LeaseGranted, LeaseRevoked
from shared.contracts.disks import DiskClaimed, DiskOperationFailed
from shared.contracts.events import CloudEvent
from shared.database import Transaction
from shared.messaging import AnySubscription, BatchSubscription, Subscription

_TOLD_ONLY = tuple(
    event
    for event in event_types()
    if event_name(event) in TOLD_EVENTS and event not in {DiskClaimed, DiskOperationFailed}
)
"""Events, our own among them, of which webhooks are told and that mean nothing else here."""


@dataclass(frozen=True)
class Consumers:
    """Handlers of events, most of them of other services."""

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
            # of one event a webhook has one message, so no inbox is needed
            *(BatchSubscription(event, self.on_told, repeatable=True) for event in _TOLD_ONLY),
        )

    async def on_queued(self, transaction: Transaction, received: Sequence[tuple[JobQueued, CloudEvent]]) -> None:
        """Positions in the queue are what capacity says."""
        moves = [
            QueueMove(data.job_id, QueueMoved(data.position, data.estimated_start_at, data.reason), event.sequence)
            for data, event in received
        ]
        now = self.context.clock()
        await apply_queue_moves(transaction=transaction, moves=moves, now=now, context=self.context)
        near = [turn_near_message(data, event) for data, event in received if is_turn_near(data, now)]
        if near:
            await record_messages(transaction, near, now)

    async def on_granted(self, transaction: Transaction, data: LeaseGranted, event: CloudEvent) -> None:
        """It has GPUs: the intent to make its pod is committed here, before any pod exists."""
        await self._apply(transaction, data.job_id, Granted(data.epoch, data.node), event.sequence)

    async def on_revoked(self, transaction: Transaction, data: LeaseRevoked, event: CloudEvent) -> None:
        """Its GPUs are gone."""
        await self._apply(transaction, data.job_id, Revoked(data.epoch, data.reason), event.sequence)

    async def on_disk_claimed(self, transaction: Transaction, data: DiskClaimed, event: CloudEvent) -> None:
        """Its disk can be used."""
        await self.on_told(transaction, [(data, event)])
        await self._apply(transaction, data.job_id, DiskReady(data.volume_id, data.availability_zone), None)

    async def on_disk_failed(self, transaction: Transaction, data: DiskOperationFailed, event: CloudEvent) -> None:
        """Its disk will never be there."""
        await self.on_told(transaction, [(data, event)])
        if data.job_id is not None:
            await self._apply(transaction, data.job_id, DiskFailed(data.error), None)

    async def on_told(self, transaction: Transaction, received: Sequence[tuple[Any, CloudEvent]]) -> None:
        """It is to be told to webhooks."""
        messages = (message_of(data, event) for data, event in received)
        await record_messages(transaction, messages, self.context.clock())

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
