"""Every alert, fired once by causing what it is for; and all queries of the dashboard, which then have data."""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Any
from uuid import uuid4

import httpx
import pytest
from nats.aio.client import Client as Nats

from deploy.local.broker import Broker
from shared.contracts.capacity import LeaseGranted
from tests.support.harness import connected, nats_client
from tests.support.leftovers import ec2, make_stray_pod
from tests.support.prometheus import Prometheus, dashboard_queries, needs_prometheus, rules, scraping
from tests.support.stack import ApiUser, LocalStack, hanging, running_stack, until, users

pytestmark = [pytest.mark.slow, pytest.mark.timeout(800), needs_prometheus]

# thresholds of time, shorter; a watch of nodes that do not change hears nothing for half a minute
SHORTER = {
    "GpudevOutboxStands": ("> 60", "> 5"),
    "GpudevInboxStands": ("> 300", "> 5"),
    "GpudevWorkOverdue": ("> 60", "> 5"),
    "GpudevWatchSilent": ("> 120", "> 45"),
    "GpudevJobOverstays": ("> 900", "> 5"),
    "GpudevQueueLate": ("> 3600", "> 5"),
    "GpudevDiskOperationStuck": ("> 900", "> 10"),
}
WINDOW = "[30s]"
BLOCKERS, WAITING, ENOUGH = 2, 30, 25
"""Jobs that hold all GPUs, jobs that wait for them, and how many of those have to be promised a start."""


def impatient() -> list[dict[str, Any]]:
    """The rules, with less patience and otherwise as they are."""
    given = rules()
    for name, rule in given.items():
        rule.pop("for", None)
        old, new = SHORTER.get(name, ("", ""))
        assert old in rule["expr"], name
        rule["expr"] = re.sub(r"\[\d+m\]", WINDOW, rule["expr"].replace(old, new))
    return [{"name": "gpudev", "rules": list(given.values())}]


class Watch:
    """Who looks at the alerts."""

    def __init__(self, server: Prometheus) -> None:
        self.server = server
        self.fired: dict[str, str] = {}
        """Names of the alerts that were seen firing, with their summary."""

    async def fires(self, *names: str, seconds: float = 60.0, **labels: str) -> None:
        """Wait until all of them fire, each about this."""
        for name in names:

            async def seen(name: str = name) -> bool:
                return bool(await self._about(name, labels))

            await until(seen, f"{name} fires, about {labels or 'anything'}", seconds=seconds, period=0.5)

    async def ends(self, *names: str, seconds: float = 90.0) -> None:
        """Wait until none of them fires any more."""

        async def over() -> bool:
            return not set(names) & (await asyncio.to_thread(self.server.firing)).keys()

        await until(over, f"{names} end", seconds=seconds, period=0.5)

    async def _about(self, name: str, labels: Mapping[str, str]) -> list[dict[str, Any]]:
        found = (await asyncio.to_thread(self.server.firing)).get(name, [])
        about = [alert for alert in found if labels.items() <= alert["labels"].items()]
        for alert in about:
            self.fired[name] = alert["annotations"]["summary"]
        return about


@pytest.fixture(scope="module")
def strained() -> Iterator[LocalStack]:
    """A stack that sweeps often and deletes nothing, on nodes of one type."""
    settings = {"GPUDEV_SWEEP": "report", "GPUDEV_SWEEP_SECONDS": "2", "GPUDEV_NODES": "p5.48xlarge,p5.48xlarge"}
    limits = dict.fromkeys(("ADDRESS", "ACCESS_KEY"), "1000")
    settings |= {f"GPUDEV_LOGIN_LIMIT_PER_MINUTE_{name}": limit for name, limit in limits.items()}
    with running_stack(**settings) as stack:
        yield stack


@pytest.fixture(scope="module")
def prometheus(strained: LocalStack) -> Iterator[Prometheus]:
    with scraping(strained, impatient()) as server:
        yield server


async def test_every_alert_fires_by_what_it_is_for_and_the_dashboard_has_data(
    strained: LocalStack, prometheus: Prometheus
) -> None:
    watch = Watch(prometheus)
    async with users(strained, "alice", "bob") as (alice, bob):
        await alice.submit(gpu_count=1, command="exit 0")
        await watch.ends(*rules())  # nothing of what is just starting
        async with poisoned(strained):
            await leave_objects(strained, alice, watch)
            await keep_a_pod_that_ends(strained, alice, watch)
            await stop_aws(strained, alice, watch)
            await lock_tables(strained, alice, bob, watch)
            await stop_kubernetes(strained, watch)
            await stop_the_broker(strained, alice, watch)
            await stop_a_service(strained, watch)
            # what disagrees has to for two minutes; the stray pod does since the beginning
            await watch.fires("GpudevLeasesDiffer", kind="pod_without_lease", seconds=180)
            delete = strained.cluster_api().delete_namespaced_pod
            await asyncio.to_thread(delete, "stray", "gpudev", grace_period_seconds=0)
            await disappoint(strained, alice, watch)
            # after eight attempts, over two minutes
            await watch.fires("GpudevDeadLetters", job="gpudev-jobs", seconds=240)
    assert watch.fired.keys() == rules().keys()
    assert not {name: text for name, text in watch.fired.items() if "error expanding" in text or "<no value>" in text}
    answers = {name: await asyncio.to_thread(prometheus.query, query) for name, query in dashboard_queries().items()}
    assert not [name for name, samples in answers.items() if not samples]


@asynccontextmanager
async def poisoned(stack: LocalStack) -> AsyncIterator[None]:
    """An event comes that jobs can never take in: a lease whose epoch is no number."""
    async with broker(stack, "capacity") as client:
        job_id = str(uuid4())
        event = {
            "specversion": "1.0",
            "id": job_id,
            "source": "/gpudev/capacity",
            "type": LeaseGranted.type_name(),
            "subject": job_id,
            "time": "2026-01-01T00:00:00Z",
            "sequence": 1,
            "messageid": 1,
            "data": {"job_id": job_id, "epoch": "first", "node": "n", "gpu_count": 1},
        }
        subject = LeaseGranted.subject_filter().replace("*", job_id)
        await client.jetstream().publish(subject, json.dumps(event).encode())
    yield


async def leave_objects(stack: LocalStack, user: ApiUser, watch: Watch) -> None:
    """A pod of a job that nobody knows holds a GPU; and a disk's volume is deleted in AWS by hand."""
    await asyncio.to_thread(make_stray_pod, stack)
    created = await user.client.post("/v1/disks", json={"disk_name": "precious", "size_gb": 10})
    assert created.status_code < 300, created.text

    async def volumes() -> list[str]:
        found = await asyncio.to_thread(ec2(stack).describe_volumes)
        return [one["VolumeId"] for one in found["Volumes"] if one["State"] == "available"]

    (volume,) = await until(volumes, "the volume is there")

    async def usable() -> bool:
        return bool((await user.client.get("/v1/disks/precious")).status_code == 200)

    await until(usable, "the disk is known")
    await asyncio.to_thread(ec2(stack).delete_volume, VolumeId=volume)
    # a row that has changed in the last five minutes says nothing yet
    await stack.execute("disks", "UPDATE disks SET updated_at = now() - interval '1 hour'")
    await watch.fires("GpudevOrphans", kind="pods")
    await watch.fires("GpudevMissing", kind="volume")


async def keep_a_pod_that_ends(stack: LocalStack, user: ApiUser, watch: Watch) -> None:
    """A job's time is over, and its pod does not go."""
    job_id = await user.submit(gpu_count=1)
    pod = (await user.wait(job_id, "active"))["pod_name"]
    finalizers = stack.cluster_api().patch_namespaced_pod
    await asyncio.to_thread(finalizers, pod, "gpudev", {"metadata": {"finalizers": ["example.org/held"]}})
    await stack.execute("jobs", "UPDATE jobs SET expires_at = now(), due_at = now() WHERE id = $1", job_id)
    await watch.fires("GpudevJobOverstays")
    await asyncio.to_thread(finalizers, pod, "gpudev", {"metadata": {"finalizers": None}})
    await user.wait(job_id, "expired")


async def stop_aws(stack: LocalStack, user: ApiUser, watch: Watch) -> None:
    """AWS does not answer: nobody logs in, no disk is made."""
    with hanging(stack, "moto"):
        created = await user.client.post("/v1/disks", json={"disk_name": "late", "size_gb": 10})
        assert created.status_code < 300, created.text
        keys = {"aws_access_key_id": "ASIAEXAMPLEEXAMPLE12", "aws_secret_access_key": "a" * 40}
        body = {**keys, "aws_session_token": "token"}
        async with keep_asking(stack, "POST", "/v1/auth/aws-login", json=body):
            await watch.fires("GpudevStsFails", "GpudevErrors", "GpudevLoginsFail", seconds=90)
            await watch.fires("GpudevDiskOperationStuck", action="create")


async def lock_tables(stack: LocalStack, alice: ApiUser, bob: ApiUser, watch: Watch) -> None:
    """Somebody left a lock open: rows of jobs cannot be taken up; capacity takes no events in, and answers slowly."""
    job_id = await alice.submit(gpu_count=1)
    await alice.wait(job_id, "active")
    async with locked(stack, "jobs", "jobs", "EXCLUSIVE"):
        await watch.fires("GpudevWorkOverdue", worker="reconciler", seconds=90)
        await watch.fires("GpudevLoopStands", job="gpudev-jobs", seconds=90)
    await watch.ends("GpudevWorkOverdue")
    async with locked(stack, "capacity", "inbox", "ACCESS EXCLUSIVE"), keep_asking(stack, "GET", SLOW_ROUTE, user=bob):
        await alice.submit(gpu_count=1, command="exit 0")
        await watch.fires("GpudevInboxStands", job="gpudev-capacity")
        await watch.fires("GpudevSlow", route=SLOW_ROUTE, seconds=90)
    await watch.ends("GpudevUnhealthy")
    await alice.client.post(f"/v1/jobs/{job_id}/cancel")


async def stop_kubernetes(stack: LocalStack, watch: Watch) -> None:
    """The API server does not answer: passes over jobs with pods fail, and watches hear nothing."""
    async with users(stack, "carol") as (carol,):
        job_ids = [await carol.submit(gpu_count=1) for _ in range(3)]
        for job_id in job_ids:
            await carol.wait(job_id, "active")
        await watch.ends("GpudevWatchSilent", "GpudevPassesFail")
        with hanging(stack, "cluster"):
            await watch.fires("GpudevWatchSilent", seconds=90)
            await watch.fires("GpudevPassesFail", worker="reconciler", seconds=120)
        await watch.ends("GpudevWatchSilent")
        for job_id in job_ids:
            await carol.client.post(f"/v1/jobs/{job_id}/cancel")
        for job_id in job_ids:
            await carol.wait(job_id, "cancelled")


async def stop_the_broker(stack: LocalStack, user: ApiUser, watch: Watch) -> None:
    """NATS does not answer: events wait to be published."""
    with hanging(stack, "nats"):
        await user.submit(gpu_count=1, command="exit 0")
        await watch.fires("GpudevOutboxStands", job="gpudev-jobs")
        await watch.fires("GpudevUnhealthy", job="gpudev-disks")
    await watch.ends("GpudevOutboxStands", "GpudevUnhealthy")


async def stop_a_service(stack: LocalStack, watch: Watch) -> None:
    """The one replica of a service does not answer."""
    with hanging(stack, "disks-1"):
        await watch.fires("GpudevDown", job="gpudev-disks")
    await watch.ends("GpudevDown")


async def disappoint(stack: LocalStack, user: ApiUser, watch: Watch) -> None:
    """Jobs wait longer than they were promised, and start late."""
    blockers = [await user.submit(gpu_count=8) for _ in range(BLOCKERS)]

    for job_id in blockers:
        await user.wait(job_id, "active", seconds=90)
    waiting = [await user.submit(gpu_count=1, command="exit 0", duration_hours=2) for _ in range(WAITING)]
    await promised(stack, ENOUGH)
    await stack.execute(
        "capacity", "UPDATE places SET first_p90_at = now() - interval '1 minute' WHERE state = 'waiting'"
    )
    await watch.fires("GpudevQueueLate", gpu_type="h100")
    for job_id in blockers:
        await user.client.post(f"/v1/jobs/{job_id}/cancel")
    await watch.fires("GpudevForecastsMiss", gpu_type="h100", seconds=120)
    for job_id in waiting:
        with suppress(httpx.TransportError):
            await user.client.post(f"/v1/jobs/{job_id}/cancel")


async def promised(stack: LocalStack, count: int) -> None:
    """Wait until so many waiting jobs were told a p90."""
    async with connected(stack.dsn("capacity")) as connection:

        async def told() -> bool:
            query = "SELECT count(*) FROM places WHERE state = 'waiting' AND first_p90_at IS NOT NULL"
            return bool(await connection.fetchval(query) >= count)

        await until(told, "promises", seconds=60)


SLOW_ROUTE = "/v1/gpu/availability"


@asynccontextmanager
async def locked(stack: LocalStack, service: str, table: str, mode: str) -> AsyncIterator[None]:
    """A transaction of the service's own role that holds a lock and does not end."""
    async with connected(stack.dsn(service)) as connection:
        await connection.transaction().start()
        await connection.execute(f"LOCK TABLE {table} IN {mode} MODE")
        yield


@asynccontextmanager
async def keep_asking(
    stack: LocalStack, method: str, path: str, *, user: ApiUser | None = None, **request: Any
) -> AsyncIterator[None]:
    """Somebody asks again and again, whatever they are answered."""

    async def ask() -> None:
        headers = {"Authorization": f"Bearer {user.key}"} if user else {}
        async with httpx.AsyncClient(base_url=stack.url, timeout=30, headers=headers, trust_env=False) as client:
            while True:
                with suppress(httpx.TransportError):
                    await client.request(method, path, **request)
                await asyncio.sleep(0.3)

    asking = [asyncio.create_task(ask()) for _ in range(4)]
    try:
        yield
    finally:
        for task in asking:
            task.cancel()
        await asyncio.gather(*asking, return_exceptions=True)


@asynccontextmanager
async def broker(stack: LocalStack, user: str) -> AsyncIterator[Nats]:
    """NATS as one of its users."""
    secrets = stack.state.secrets()
    server = Broker(
        directory=stack.state.broker,
        port=stack.parts()["nats"].port or 0,
        services_password=secrets.broker_services,
        tools_password=secrets.broker_tools,
    )
    async with nats_client(server.url(user), inbox_prefix=f"_INBOX.{user}") as client:
        yield client
