"""One trace, from a client's request through every service to the start of the job's pod."""

import asyncio
from pathlib import Path

import pytest

from tests.support.collector import Seen, collecting, relayed
from tests.support.stack import ApiUser, running_stack, until, users

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
CLIENTS = f"00-{TRACE}-{SPAN}-01"
TRACE_OF_DISK, SPAN_OF_DISK = "5cf92f3577b34da6a3ce929d0e0e4736", "11f067aa0ba902b7"
ASKED = "gpudev.rpc.auth.verify"


async def make_disk(user: ApiUser) -> None:
    """A disk, whose making belongs to its request's trace."""
    traced = {"traceparent": f"00-{TRACE_OF_DISK}-{SPAN_OF_DISK}-01"}
    made = (await user.client.post("/v1/disks", json={"disk_name": "traced", "size_gb": 10}, headers=traced)).json()

    async def completed() -> bool:
        answer = await user.client.get(f"/v1/disks/traced/operations/{made['operation_id']}")
        return bool(answer.json()["completed"])

    await until(completed, "the disk is made")


@pytest.mark.long
@pytest.mark.timeout(300)
async def test_one_trace_leads_from_the_request_to_the_pod(tmp_path: Path) -> None:
    """A collector that others have written has to take what the services say, and hands it on in its own words."""
    with collecting() as collector:
        settings = {"OTEL_BSP_SCHEDULE_DELAY": "100", "GPUDEV_REPLICAS": "2"}
        with relayed(collector) as endpoint, running_stack(GPUDEV_OTLP_ENDPOINT=endpoint, **settings) as stack:
            async with users(stack, "alice") as (alice,):
                alice.client.headers["traceparent"] = CLIENTS
                # it runs until it was seen to: of one that has ended at once its pod may be seen too late
                seen = tmp_path / "seen"
                job_id = await alice.submit(gpu_count=1, command=f"until [ -e {seen} ]; do sleep 0.1; done")
                del alice.client.headers["traceparent"]
                await alice.wait(job_id, "active")
                seen.touch()
                await alice.wait(job_id, "completed")

                async def told() -> list[Seen]:
                    # jobs takes it in as well, for webhooks
                    heard = collector.named("take in dev.gpudev.jobs.started.v1")
                    return [one for one in heard if one.service == "gpudev-capacity"]

                (*_, started) = await until(told, "capacity has heard that the job runs")
                await make_disk(alice)
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
        (made,) = collector.named("ask ec2: create_volume")
        assert collector.way_to(made, parent=SPAN_OF_DISK) == [
            "gpudev-disks: POST /v1/disks",
            "gpudev-disks: work: create",
            "gpudev-disks: ask ec2: create_volume",
        ]
        assert made.trace == TRACE_OF_DISK
        names = {f"{one.service}: {one.name}" for one in collector.trace_of("POST /v1/jobs/submit")}
        assert {"gpudev-jobs: reconcile: Make", f"gpudev-jobs: ask {ASKED}", f"gpudev-auth: answer {ASKED}"} <= names
        assert not [one for one in collector.spans if "/livez" in one.name or "/readyz" in one.name]
