"""The trace of a submission goes on with what the reconciler does for the job, up to its pod's start."""

from tests.support.collector import Collector, Seen, collector
from tests.support.harness import eventually
from tests.support.jobs import Client, JobsWorld, until_status

__all__ = ["collector"]


async def first(collector: Collector, name: str) -> Seen:
    """The first span of that name, once there is one."""
    await eventually(lambda: collector.named(name), name)
    return collector.named(name)[0]


async def test_a_jobs_pod_is_made_in_the_trace_of_its_submission(
    world: JobsWorld, client: Client, collector: Collector
) -> None:
    job_id = await world.submit(client)
    submitted = await first(collector, "POST /v1/jobs/submit")
    await world.grant(job_id)
    await until_status(client, job_id, "active")
    made = await first(collector, "reconcile: Make")
    started = await first(collector, "publish dev.gpudev.jobs.started.v1")
    announced = await first(collector, "publish dev.gpudev.jobs.submitted.v1")
    assert {made.trace, started.trace, announced.trace} == {submitted.trace}
    assert made.parent == announced.parent == submitted.id
    assert made.attributes == {"gpudev.job_id": str(job_id)}
    (seen,) = [one for one in collector.spans if one.id == started.parent]
    assert seen.name.startswith("reconcile: Record "), "whoever saw the pod's start told of it"
