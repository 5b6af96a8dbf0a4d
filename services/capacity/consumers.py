"""The jobs service's events: each changes the job's place."""

from datetime import UTC, datetime

from services.capacity.domain.placement import Terms
from services.capacity.operations import explain_job, follow_job
from shared.contracts.capacity import EXPLAIN_SUBJECT, ExplainRequest, Explanation
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
from shared.database import Database, Transaction
from shared.messaging import RpcEndpoint, Subscription
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


def explain_endpoint(database: Database, terms: Terms) -> RpcEndpoint[ExplainRequest, Explanation]:
    """Answers the jobs service's questions about its users' jobs."""

    async def explain(request: ExplainRequest) -> Explanation:
        return await explain_job(database, job_id=request.job_id, now=datetime.now(UTC), terms=terms)

    return RpcEndpoint(EXPLAIN_SUBJECT, ExplainRequest, explain)


def subscriptions(*, relay: Wakes, placer: Wakes) -> list[Subscription[JobEvent]]:
    """What capacity listens to.

    Args:
        relay: Woken when an event of ours was recorded.
        placer: Woken when the line changed.
    """

    async def on_job_event(tx: Transaction, data: JobEvent, event: CloudEvent) -> None:
        await follow_job(tx, data, sequence=event.sequence, now=datetime.now(UTC), relay=relay, placer=placer)

    return [Subscription(event, on_job_event) for event in FOLLOWED]
