"""One trace, from a client's request through every service to the start of the job's pod."""

import asyncio

import pytest

from tests.support.collector import Seen, collecting
from tests.support.stack import running_stack, until, users

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
CLIENTS = f"00-{TRACE}-{SPAN}-01"
ASKED = "gpudev.rpc.auth.verify"


@pytest.mark.long
async def test_one_trace_leads_from_the_request_to_the_pod() -> None:
    with collecting() as collector:
        settings = {"GPUDEV_OTLP_ENDPOINT": collector.url, "OTEL_BSP_SCHEDULE_DELAY": "100", "GPUDEV_REPLICAS": "2"}
        with running_stack(**settings) as stack:
            async with users(stack, "alice") as (alice,):
                alice.client.headers["traceparent"] = CLIENTS
                job_id = await alice.submit(gpu_count=1, command="exit 0")
                del alice.client.headers["traceparent"]
                await alice.wait(job_id, "completed")

                async def told() -> list[Seen]:
                    return collector.named("take in dev.gpudev.jobs.started.v1")

                (*_, started) = await until(told, "capacity has heard that the job runs")
            assert started.trace == TRACE
            await asyncio.to_thread(stack.stop)
        # the submission is the client's; capacity leases, jobs makes the pod in what it began itself
        assert collector.way_to(started, parent=SPAN)[-3:] == [
            "gpudev-jobs: reconcile: Record PodReady",
            "gpudev-jobs: publish dev.gpudev.jobs.started.v1",
            "gpudev-capacity: take in dev.gpudev.jobs.started.v1",
        ]
        (granted, *_) = collector.named("take in dev.gpudev.capacity.granted.v1")
        assert collector.way_to(granted, parent=SPAN) == [
            "gpudev-jobs: POST /v1/jobs/submit",
            "gpudev-jobs: publish dev.gpudev.jobs.submitted.v1",
            "gpudev-capacity: take in dev.gpudev.jobs.submitted.v1",
            "gpudev-capacity: lease GPUs",
            "gpudev-capacity: publish dev.gpudev.capacity.granted.v1",
            "gpudev-jobs: take in dev.gpudev.capacity.granted.v1",
        ]
        names = {f"{one.service}: {one.name}" for one in collector.trace_of("POST /v1/jobs/submit")}
        assert {"gpudev-jobs: reconcile: Make", f"gpudev-jobs: ask {ASKED}", f"gpudev-auth: answer {ASKED}"} <= names
        assert not [one for one in collector.spans if "/livez" in one.name or "/readyz" in one.name]
