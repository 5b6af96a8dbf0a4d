"""The jobs service's events: each changes the job's place."""

from datetime import UTC, datetime

from services.capacity.operations import follow_job
from shared.contracts.events import CloudEvent
from shared.contracts.jobs import (
    JobCancelRequested,
    JobEnded,
    JobEvent,
    JobExpiring,
    JobExtended,
    JobLost,
    JobPreparing,
    JobPrioritised,
    JobReady,
    JobRequeued,
    JobStarted,
    JobSubmitted,
)
from shared.database import Transaction
from shared.messaging import Subscription
from shared.messaging.outbox import Wakes

FOLLOWED: tuple[type[JobEvent], ...] = (
    JobSubmitted,
    JobReady,
    JobPreparing,
    JobPrioritised,
    JobRequeued,
    JobStarted,
    JobExpiring,
    JobExtended,
    JobLost,
    JobCancelRequested,
    JobEnded,
)


def subscriptions(*, relay: Wakes, placer: Wakes) -> list[Subscription[JobEvent]]:
    """What capacity listens to.

    Args:
        relay: Woken when an event of ours was recorded.
        placer: Woken when the line changed.
    """

    async def on_job_event(tx: Transaction, data: JobEvent, event: CloudEvent) -> None:
        await follow_job(tx, data, sequence=event.sequence, now=datetime.now(UTC), relay=relay, placer=placer)

    return [Subscription(event, on_job_event) for event in FOLLOWED]
