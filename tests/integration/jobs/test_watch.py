"""The watch on pods hangs, expires, breaks, lies, or Kubernetes answers with errors (Incident 7)."""

import json
import time
from collections.abc import AsyncIterator
from pathlib import Path
from uuid import UUID

import pytest
from aiohttp import web
from prometheus_client import REGISTRY

from services.jobs.adapters.kubernetes import pods
from tests.support.fault_proxy import Fault, FaultProxy, Rule, fault_proxy, is_watch
from tests.support.harness import eventually
from tests.support.jobs import Client, JobsWorld, job_of, kube, until_status
from tests.support.promises import promised

NEVER = 3600.0
TROUBLED_REQUESTS = 5
GONE = {"kind": "Status", "code": 410, "reason": "Expired", "message": "too old resource version"}


@pytest.fixture
async def proxy(world: JobsWorld, tmp_path: Path) -> AsyncIterator[FaultProxy]:
    async with fault_proxy(Path(world.settings.kubeconfig or ""), tmp_path) as proxy:
        yield proxy


@pytest.fixture(autouse=True)
def short_watches(monkeypatch: pytest.MonkeyPatch) -> None:
    """A watch that hangs is noticed after its length and the slack: 1.5 s in place of 15."""
    monkeypatch.setattr(pods, "_WATCH_SECONDS", 1)
    monkeypatch.setattr(pods, "_WATCH_SLACK_SECONDS", 0.5)


async def start(world: JobsWorld, client: Client) -> UUID:
    job_id = await world.submit(client, command="sleep 600")
    await world.grant(job_id)
    await until_status(client, job_id, "active")
    return job_id


def on_watches(fault: Fault) -> Rule:
    return lambda request: fault if is_watch(request) else None


def on_everything(fault: Fault) -> Rule:
    return lambda _: fault


def lie(job_id: UUID) -> Fault:
    """The watch says that the job's pod was deleted, which it was not."""
    labels = {"app.kubernetes.io/managed-by": "gpudev", "gpudev/job-id": str(job_id), "gpudev/epoch": "1"}
    pod = {"metadata": {"name": f"gpu-dev-{job_id}-1", "labels": labels, "resourceVersion": "1"}}
    return Fault(lines=(json.dumps({"type": "DELETED", "object": pod}).encode(),))


TROUBLES = {
    "hangs": on_watches(Fault(hang=True)),
    "expired": on_watches(Fault(status=410, reason="Expired")),
    "expires in its midst": on_watches(Fault(lines=(json.dumps({"type": "ERROR", "object": GONE}).encode(),))),
    "is no JSON": on_watches(Fault(lines=(b"<html>",))),
    "breaks": on_watches(Fault(cut_after=1)),
    "errors": on_everything(Fault(status=500)),
}


class Trouble:
    """A rule, and how many requests met it."""

    def __init__(self, rule: Rule) -> None:
        self._rule = rule
        self.met = 0

    def __call__(self, request: web.Request) -> Fault | None:
        """The fault of a request."""
        fault = self._rule(request)
        self.met += fault is not None
        return fault


def contact_age() -> float:
    """Seconds since the watch's last sign of life, as operators see it."""
    return time.time() - float(REGISTRY.get_sample_value("gpudev_watch_contact_timestamp_seconds") or 0.0)


@pytest.mark.parametrize("kind", sorted(TROUBLES))
async def test_trouble_ends_no_job_and_deletes_nothing_and_the_watch_recovers_by_itself(
    world: JobsWorld, proxy: FaultProxy, kind: str
) -> None:
    """Nothing but the watch tells of pods here, so that what happened meanwhile is known by its recovery alone."""
    async with world.service(kubeconfig=str(proxy.kubeconfig), resync_seconds=NEVER) as client:
        living, dying = [await start(world, client) for _ in range(2)]
        trouble = proxy.rule = Trouble(TROUBLES[kind])
        await eventually(lambda: trouble.met > 0, "the trouble has begun")
        await kube(world).set_pod_status(f"gpu-dev-{dying}-1", {"phase": "Failed", "containerStatuses": "OOMKilled"})
        many = 2 if kind == "hangs" else TROUBLED_REQUESTS
        await eventually(lambda: trouble.met >= many, "it goes on")
        assert (await job_of(client, living))["status"] == "active"
        assert proxy.count("DELETE", f"gpu-dev-{living}-1") == 0
        proxy.rule = lambda _: None
        job = await until_status(client, dying, "failed")
        assert "out of memory" in job["failure_reason"]
        await eventually(lambda: contact_age() < 1, "the watch is alive")
        assert (await job_of(client, living))["status"] == "active"
        assert proxy.count("DELETE", f"gpu-dev-{living}-1") == 0
        assert await world.announced(living) == ["submitted", "preparing", "started"]
        assert_looked_before_deleting(proxy, f"gpu-dev-{dying}-1")


def assert_looked_before_deleting(proxy: FaultProxy, pod: str) -> None:
    """What preceded the first deletion of a pod was a live look at that very pod."""
    mine = [method for method, path in proxy.seen if path.endswith((f"/pods/{pod}", f"/pods/{pod}/log"))]
    assert "DELETE" in mine
    assert mine[mine.index("DELETE") - 1] == "GET"


def on_pod(job_id: UUID, fault: Fault) -> Rule:
    """On looks at a job's pod."""
    return lambda request: fault if request.path.endswith(f"/pods/gpu-dev-{job_id}-1") else None


async def test_news_of_more_jobs_than_are_worked_at_once_is_kept(world: JobsWorld, proxy: FaultProxy) -> None:
    async with world.service(kubeconfig=str(proxy.kubeconfig), resync_seconds=NEVER, concurrency=1) as client:
        slow, *others = [await start(world, client) for _ in range(4)]
        failed = {"phase": "Failed", "containerStatuses": "OOMKilled"}
        looks = proxy.rule = Trouble(on_pod(slow, Fault(hang=True)))
        await kube(world).set_pod_status(f"gpu-dev-{slow}-1", failed)
        await eventually(lambda: looks.met > 0, "its look takes the only room")
        for job_id in others:
            await kube(world).set_pod_status(f"gpu-dev-{job_id}-1", failed)
        proxy.rule = lambda _: None
        for job_id in (slow, *others):
            await until_status(client, job_id, "failed")


async def test_a_watch_that_lies_ends_no_job(world: JobsWorld, proxy: FaultProxy) -> None:
    async with world.service(kubeconfig=str(proxy.kubeconfig), resync_seconds=NEVER) as client:
        job_id = await start(world, client)
        looks = proxy.count("GET", f"gpu-dev-{job_id}-1")
        proxy.rule = on_watches(lie(job_id))
        await eventually(lambda: proxy.count("GET", f"gpu-dev-{job_id}-1") > looks + 2, "it is looked at")
        assert (await job_of(client, job_id))["status"] == "active"
        assert proxy.count("DELETE", f"gpu-dev-{job_id}-1") == 0
        assert await world.announced(job_id) == ["submitted", "preparing", "started"]


async def test_news_of_a_running_pod_leads_to_a_look_at_the_pod_alone(world: JobsWorld, proxy: FaultProxy) -> None:
    """What belongs to it was made a moment ago; whether it is still there is seen once in the time between looks."""
    async with world.service(kubeconfig=str(proxy.kubeconfig), resync_seconds=NEVER) as client:
        job_id = await start(world, client)
        pod, looks = f"gpu-dev-{job_id}-1", proxy.count("GET", f"/pods/gpu-dev-{job_id}-1")
        proxy.rule = on_watches(lie(job_id))
        await eventually(lambda: proxy.count("GET", f"/pods/{pod}") > looks + 2, "it is looked at")
        assert [proxy.count("GET", f"/{kind}/{pod}") for kind in ("services", "secrets")] == [0, 0]


async def test_a_silent_watch_shows_in_the_metric_and_jobs_end_by_the_next_look(
    world: JobsWorld, proxy: FaultProxy
) -> None:
    """Row 6: a pod that ran out of memory is known within one resync, whatever the watch does."""
    async with world.service(kubeconfig=str(proxy.kubeconfig), resync_seconds=1.0) as client:
        job_id = await start(world, client)
        proxy.rule = on_watches(Fault(hang=True))
        await eventually(lambda: contact_age() > 2, "the age of the watch's news grows")
        await kube(world).set_pod_status(f"gpu-dev-{job_id}-1", {"phase": "Failed", "containerStatuses": "OOMKilled"})
        with promised(5):
            job = await until_status(client, job_id, "failed")
        assert "out of memory" in job["failure_reason"]
        assert contact_age() > 2


@pytest.mark.parametrize(
    "fault", [Fault(status=500), Fault(status=404), Fault(status=403, reason="Forbidden")], ids=["500", "404", "403"]
)
async def test_a_job_whose_time_is_up_in_an_outage_ends_after_it_and_not_before_a_look(
    world: JobsWorld, proxy: FaultProxy, fault: Fault
) -> None:
    """A 404 of something in between says nothing of the pod."""
    async with world.service(kubeconfig=str(proxy.kubeconfig)) as client:
        job_id = await start(world, client)
        trouble = proxy.rule = Trouble(on_everything(fault))
        await world.update(job_id, "expires_at = now(), due_at = now()")
        await eventually(lambda: trouble.met >= TROUBLED_REQUESTS, "it goes on")
        assert (await job_of(client, job_id))["status"] == "active"
        assert proxy.count("DELETE", f"gpu-dev-{job_id}-1") == 0
        proxy.rule = lambda _: None
        await until_status(client, job_id, "expired")
        assert_looked_before_deleting(proxy, f"gpu-dev-{job_id}-1")
        assert await world.announced(job_id) == ["submitted", "preparing", "started", "ended"]
