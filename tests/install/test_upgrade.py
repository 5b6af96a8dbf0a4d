"""An upgrade and a rollback on a working day, and evictions: users notice nothing."""

import asyncio
import json
import os
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import nats
import pytest

from deploy.local.postgres import DATABASE, binaries
from shared.contracts.events import STREAM
from shared.routes import SERVICES
from tests.install.installation import SYSTEM, Installation
from tests.install.surroundings import eventually, run
from tests.install.test_install import ready, service_pods
from tests.install.traffic import HELD_SECONDS, Traffic

pytestmark = pytest.mark.timeout(900)
BEFORE = "before"
"""Tag of the images of the commit before, whose chart is in the folder GPUDEV_CHART_BEFORE."""


def go_forth_and_back(installation: Installation) -> None:
    """From the commit before to this one, and by a rollback of Helm's to the one before."""
    chart = os.environ["GPUDEV_CHART_BEFORE"]
    wait = ("--wait", "--timeout", "6m")
    installation.helm("upgrade", "gpudev", chart, "--values", "values.yaml", "--set", f"image.tag={BEFORE}", *wait)
    installation.helm("upgrade", "gpudev", "deploy/chart/gpudev", "--values", "values.yaml", *wait)
    installation.helm("rollback", "gpudev", *wait)


def evict_all(installation: Installation) -> None:
    """Each replica of each service, one after the other, as a drain of its node does."""
    for service in SERVICES:
        for pod in eventually(lambda service=service: replicas(installation, service), "two replicas", 120):
            eventually(lambda pod=pod: evict(installation, pod), "an eviction that is allowed", 120)
            eventually(lambda service=service, pod=pod: is_replaced(installation, service, pod), "the next one", 120)


def replicas(installation: Installation, service: str) -> set[str]:
    """Names of a service's pods, if there are two that are ready and stay; else nothing.

    What a Deployment says of it lags behind an eviction.
    """
    found = installation.objects("pods", SYSTEM, "-l", f"app.kubernetes.io/component={service}")
    staying = [pod for pod in found if "deletionTimestamp" not in pod["metadata"]]
    names = {pod["metadata"]["name"] for pod in staying if is_ready(pod)}
    return names if len(names) == len(staying) == 2 else set()


def is_ready(pod: dict[str, Any]) -> bool:
    return any(one["type"] == "Ready" and one["status"] == "True" for one in pod["status"].get("conditions", ()))


def is_replaced(installation: Installation, service: str, pod: str) -> bool:
    now = replicas(installation, service)
    return bool(now) and pod not in now


def evict(installation: Installation, pod: str) -> bool:
    eviction = {"apiVersion": "policy/v1beta1", "kind": "Eviction", "metadata": {"name": pod, "namespace": SYSTEM}}
    path = f"/api/v1/namespaces/{SYSTEM}/pods/{pod}/eviction"
    return "Success" in installation.kubectl(
        "create", "--raw", path, "-f", "-", stdin=json.dumps(eviction), check=False
    )


@pytest.mark.parametrize("disturb", [evict_all, go_forth_and_back])
def test_users_notice_nothing(installation: Installation, disturb: Callable[[Installation], None]) -> None:
    eventually(lambda: ready(installation) and installation.health()[0] == 200, "a healthy beginning", 120)
    traffic = Traffic(installation.url, installation.shell.environment["API_KEY"])

    with traffic.flowing():
        disturb(installation)
        eventually(lambda: ready(installation), "all ready again", 120)

    assert not traffic.failed, traffic.failures()
    assert traffic.answered > 200
    assert max(traffic.held) >= HELD_SECONDS - 1
    numbers = [int(line.removeprefix("line ")) for line in traffic.lines if line.startswith("line ")]
    assert numbers == list(range(len(numbers)))
    assert len(numbers) > 100
    eventually(lambda: all_run(installation), "only pods that run", 120)
    eventually(lambda: not leases(installation) & set(traffic.jobs), "leases given back", 120)
    for job, events in asyncio.run(by_entity(installation, "jobs")).items():
        # in earlier tests what the death of a NATS server left in doubt was published again, with its id
        taken = events if job in traffic.jobs else list({event["id"]: event for event in events}.values())
        assert [event["sequence"] for event in taken] == list(range(1, len(taken) + 1)), (job, events)
    granted = asyncio.run(by_entity(installation, "capacity"))
    for job in traffic.jobs:
        epochs = [event["data"]["epoch"] for event in granted[job] if event["type"].endswith(".granted.v1")]
        assert len(epochs) == len(set(epochs)), job


def all_run(installation: Installation) -> bool:
    """Those that went are of the phase Succeeded, or Failed, for a moment before they are gone."""
    return all(pod["status"]["phase"] == "Running" for pod in service_pods(installation))


def leases(installation: Installation) -> set[str]:
    """Jobs that have GPUs."""
    dsn = installation.surroundings.postgres.dsn(DATABASE)
    query = "SELECT job_id FROM capacity.leases"
    return set(run([str(binaries() / "psql"), "-X", "-A", "-t", "-c", query, dsn]).split())


async def by_entity(installation: Installation, domain: str) -> dict[str, list[dict[str, Any]]]:
    """Every event of a domain that the stream holds, by what it is about."""
    found: dict[str, list[dict[str, Any]]] = defaultdict(list)
    client = await nats.connect(installation.operator_url().split(","))
    subscription = await client.jetstream().subscribe(f"gpudev.v1.{domain}.>", stream=STREAM, ordered_consumer=True)
    try:
        waiting = 1
        while waiting:
            message = await subscription.next_msg(timeout=60)
            found[message.subject.rpartition(".")[2]].append(json.loads(message.data))
            waiting = message.metadata.num_pending
    finally:
        await client.close()
    return found
