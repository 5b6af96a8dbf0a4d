"""The trace of a job's submission goes on with its lease, however long the job waits."""

import msgspec

from services.capacity.consumers import subscriptions
from shared.contracts.events import EventData
from shared.messaging import Delivery
from tests.support.capacity import NOW, Capacity, cloud_event, ended, facts, later, submitted
from tests.support.collector import Collector, collector
from tests.support.harness import eventually

__all__ = ["collector"]
SUBMITTED, LATER = (f"00-{number:032x}-{number:016x}-01" for number in (7, 8))


async def take_in(capacity: Capacity, data: EventData, sequence: int, traceparent: str | None) -> None:
    """The event comes as from the stream."""
    event = cloud_event(data, sequence)
    if traceparent is not None:
        event = msgspec.structs.replace(event, traceparent=traceparent)
    async with capacity.database.transaction() as tx:
        await Delivery(subscriptions(capacity.context)).handle(tx, msgspec.json.encode(event), NOW)


async def trace_of(capacity: Capacity, job_id: object, name: str) -> str | None:
    (event,) = [one for one in await capacity.events(job_id) if one.type.split(".")[3] == name]
    return event.traceparent.split("-")[1] if event.traceparent else None


async def test_leases_belong_to_the_trace_of_their_jobs_submission(capacity: Capacity, collector: Collector) -> None:
    await capacity.nodes(facts("n1"))
    traced, untraced = submitted(4), submitted(4, at=later(seconds=1))
    await take_in(capacity, traced, 1, SUBMITTED)
    await take_in(capacity, untraced, 1, None)
    await capacity.schedule()
    assert await trace_of(capacity, traced.job_id, "granted") == SUBMITTED.split("-")[1]
    assert await trace_of(capacity, untraced.job_id, "granted") is None
    # what came in by another trace ends what the first one began
    await take_in(capacity, ended(traced), 2, LATER)
    assert await trace_of(capacity, traced.job_id, "released") in {part.split("-")[1] for part in (SUBMITTED, LATER)}
    await eventually(lambda: len(collector.spans) == 3, "the spans")
    first, lease, _ = collector.spans
    assert (first.name, first.parent) == ("take in dev.gpudev.jobs.submitted.v1", SUBMITTED.split("-")[2])
    assert (lease.name, lease.parent) == ("lease GPUs", first.id)
    assert lease.attributes == {"gpudev.job_id": str(traced.job_id)}
