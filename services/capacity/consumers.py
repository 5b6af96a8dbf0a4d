"""The jobs service's events, and the other services' questions."""

from collections.abc import Sequence
from datetime import timedelta

from services.capacity.context import Context
from services.capacity.operations.apply_job_events import Versioned, apply_job_events, find_unknown_jobs
from services.capacity.operations.choose_zone import choose_zone
from services.capacity.operations.explain import explain_job
from shared.contracts.capacity import (
    EXPLAIN_SUBJECT,
    UNPLACED_SUBJECT,
    ZONE_SUBJECT,
    ExplainRequest,
    Explanation,
    UnplacedReply,
    UnplacedRequest,
    ZoneReply,
    ZoneRequest,
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
from shared.database import Transaction
from shared.messaging import BatchSubscription, Broker, RpcEndpoint, has_taken_effect

APPLIED: tuple[type[JobEvent], ...] = (
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


def subscriptions(context: Context) -> list[BatchSubscription[JobEvent]]:
    """Applies the events of jobs to their entries in the queue."""

    async def on_job_events(tx: Transaction, received: Sequence[tuple[JobEvent, CloudEvent]]) -> None:
        events = [Versioned(data, event.sequence, event.traceparent or None) for data, event in received]
        await apply_job_events(context, tx, events, now=context.clock())

    return [BatchSubscription(event, on_job_events) for event in APPLIED]


def explain_endpoint(context: Context) -> RpcEndpoint[ExplainRequest, Explanation]:
    """Explains to the jobs service why a job waits."""

    async def explain(request: ExplainRequest) -> Explanation:
        return await explain_job(context, job_id=request.job_id, now=context.clock())

    return RpcEndpoint(EXPLAIN_SUBJECT, ExplainRequest, explain)


def unplaced_endpoint(context: Context, broker: Broker, consumer: str) -> RpcEndpoint[UnplacedRequest, UnplacedReply]:
    """Tells the jobs service which of its waiting jobs have no entry here, so that it publishes their events again."""

    async def unplaced(request: UnplacedRequest) -> UnplacedReply:
        # before the look at the entries: what had its effect is among them
        if request.published_up_to and not await has_taken_effect(broker, consumer, request.published_up_to):
            return UnplacedReply([])
        return UnplacedReply(await find_unknown_jobs(context.database, job_ids=request.job_ids))

    return RpcEndpoint(UNPLACED_SUBJECT, UnplacedRequest, unplaced)


def zone_endpoint(context: Context) -> RpcEndpoint[ZoneRequest, ZoneReply]:
    """Tells the disks service where a job's new disk should be made."""

    async def zone(request: ZoneRequest) -> ZoneReply:
        chosen = await choose_zone(
            context,
            zones=request.zones,
            gpu_type=request.gpu_type,
            gpu_count=request.gpu_count,
            duration=timedelta(seconds=request.duration_seconds),
            now=context.clock(),
        )
        return ZoneReply(chosen)

    return RpcEndpoint(ZONE_SUBJECT, ZoneRequest, zone)
