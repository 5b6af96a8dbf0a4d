"""The jobs service's events: each changes the job's place."""

from datetime import UTC, datetime

from services.capacity.domain.placement import Terms
from services.capacity.operations.apply import find_unplaced, follow_job
from services.capacity.operations.explain import explain_job
from shared.contracts.capacity import (
    EXPLAIN_SUBJECT,
    UNPLACED_SUBJECT,
    ExplainRequest,
    Explanation,
    UnplacedReply,
    UnplacedRequest,
)
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


def unplaced_endpoint(database: Database) -> RpcEndpoint[UnplacedRequest, UnplacedReply]:
    """Tells the jobs service which of its waiting jobs were never heard of here, or were lost."""

    async def unplaced(request: UnplacedRequest) -> UnplacedReply:
        return UnplacedReply(await find_unplaced(database, job_ids=request.job_ids))

    return RpcEndpoint(UNPLACED_SUBJECT, UnplacedRequest, unplaced)


def subscriptions(*, relay: Wakes, placer: Wakes) -> list[Subscription[JobEvent]]:
    """What capacity listens to.

    Args:
        relay: Woken when an event of ours was recorded.
        placer: Woken when the line changed.
    """

    async def on_job_event(tx: Transaction, data: JobEvent, event: CloudEvent) -> None:
        await follow_job(tx, data, sequence=event.sequence, now=datetime.now(UTC), relay=relay, placer=placer)

    return [Subscription(event, on_job_event) for event in FOLLOWED]
