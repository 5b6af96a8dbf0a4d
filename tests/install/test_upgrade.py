"""An upgrade and a rollback on a working day, and evictions: users notice nothing."""

import asyncio
import json
import os
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import nats
import nats.errors
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
        pods = [
            pod
            for pod in installation.objects("pods", SYSTEM, "-l", f"app.kubernetes.io/component={service}")
            if "deletionTimestamp" not in pod["metadata"]
        ]
        assert len(pods) == 2, [(pod["metadata"], pod["status"]["phase"]) for pod in pods]
        for pod in pods:
            eventually(lambda: evict(installation, pod["metadata"]["name"]), "an eviction that is allowed", 120)  # noqa: B023
            eventually(lambda: ready(installation), "all ready again", 120)


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
    assert all(pod["status"]["phase"] == "Running" for pod in service_pods(installation))
    eventually(lambda: not leases(installation) & set(traffic.jobs), "leases given back", 120)
    for job, events in asyncio.run(by_entity(installation, "jobs")).items():
        # in earlier tests what the death of a NATS server left in doubt was published again, with its id
        taken = events if job in traffic.jobs else list({event["id"]: event for event in events}.values())
        assert [event["sequence"] for event in taken] == list(range(1, len(taken) + 1)), (job, events)
    granted = asyncio.run(by_entity(installation, "capacity"))
    for job in traffic.jobs:
        epochs = [event["data"]["epoch"] for event in granted[job] if event["type"].endswith(".granted.v1")]
        assert len(epochs) == len(set(epochs)), job


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
        while True:
            message = await subscription.next_msg(timeout=3)
            found[message.subject.rpartition(".")[2]].append(json.loads(message.data))
    except nats.errors.TimeoutError:
        return found
    finally:
        await client.close()
