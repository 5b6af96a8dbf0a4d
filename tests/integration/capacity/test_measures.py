"""The gauges of the queue and of the GPUs say what the tables do."""

from datetime import datetime, timedelta
from typing import Any

import msgspec
import pytest
from prometheus_client import REGISTRY

from services.capacity.context import Context
from services.capacity.domain.fleet import GpuPod
from services.capacity.operations.measure import Measurer
from services.capacity.operations.orphans import list_orphans
from services.capacity.operations.record_cluster import forget_pod, record_pods
from shared.contracts.auth import Identity
from shared.errors import OperatorsOnly
from tests.support.capacity import NOW, Capacity, ended, facts, later

MINUTE = timedelta(minutes=1)
OPERATOR = Identity(user_id=9, username="op", key_id="o", expires_at=later(hours=1), is_operator=True)


class Turned:
    """A clock that the test turns."""

    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> datetime:
        return self.now


@pytest.fixture
def clock() -> Turned:
    return Turned()


@pytest.fixture
def measurer(capacity: Capacity, clock: Turned) -> Measurer:
    context = capacity.context
    changed = {name: getattr(context, name) for name in Context.__dataclass_fields__} | {"clock": clock}
    return Measurer(Context(**changed))


def value(name: str, **labels: str) -> float | None:
    return REGISTRY.get_sample_value(f"gpudev_{name}", labels)


def gpus(gpu_type: str = "h100") -> dict[str, float | None]:
    return {
        state: value("gpus", gpu_type=gpu_type, state=state) for state in ("leased", "foreign", "free", "out_of_use")
    }


def mismatches() -> dict[str, float | None]:
    kinds = ("lease_without_pod", "pod_without_lease", "node_overcommitted")
    return {kind: value("lease_mismatches", kind=kind) for kind in kinds}


def pod(name: str, node: str, count: int, **more: Any) -> GpuPod:
    given = {"uid": name, "resource_version": 1, "name": name, "node": node, "gpus": count, "job_id": None, **more}
    return msgspec.convert(given, GpuPod)


async def test_the_queue_of_each_type_is_told_with_its_age(capacity: Capacity, measurer: Measurer) -> None:
    await measurer.measure_queue()
    assert (value("queue_jobs", gpu_type="h100"), value("queue_oldest_seconds", gpu_type="h100")) == (0, 0)

    await capacity.submit(8, at=later(seconds=-300), waits_for_disk=True)
    await capacity.submit(8, at=later(seconds=-60))
    await capacity.submit(1, "a100", at=later(seconds=-5))
    await measurer.measure_queue()
    assert value("queue_jobs", gpu_type="h100") == 2
    assert value("queue_oldest_seconds", gpu_type="h100") == 60, "who waits for a disk does not wait for GPUs"
    assert value("queue_oldest_seconds", gpu_type="a100") == 5


async def test_a_job_that_waits_beyond_its_p90_is_late(capacity: Capacity, measurer: Measurer, clock: Turned) -> None:
    await capacity.nodes(facts("n1"))
    running, waiting = await capacity.submit(8), await capacity.submit(8, at=later(seconds=1))
    await capacity.schedule()
    promised = (await capacity.entry_row(waiting.job_id))["first_p90_at"]
    await measurer.measure_queue()
    assert value("queue_late_seconds", gpu_type="h100") == 0
    clock.now = promised + 7 * MINUTE
    await measurer.measure_queue()
    assert value("queue_late_seconds", gpu_type="h100") == 7 * 60
    await capacity.apply(ended(running))
    await capacity.schedule(clock.now)
    await measurer.measure_queue()
    assert (value("queue_late_seconds", gpu_type="h100"), value("queue_jobs", gpu_type="h100")) == (0, 0)


async def test_how_long_jobs_waited_is_counted_once_each(capacity: Capacity) -> None:
    def waits() -> tuple[float, float]:
        labels = {"gpu_type": "h100"}
        return value("start_wait_seconds_count", **labels) or 0, value("start_wait_seconds_sum", **labels) or 0

    before = waits()
    await capacity.nodes(facts("n1"))
    await capacity.submit(8, at=later(seconds=-90))
    await capacity.schedule()
    after = waits()
    assert (after[0] - before[0], after[1] - before[1]) == (1, 90)


async def test_every_gpu_is_in_one_state(capacity: Capacity, measurer: Measurer) -> None:
    await capacity.nodes(facts("n1"), facts("n2", schedulable=False), facts("n3", "a100"))
    await capacity.submit(3)
    await capacity.schedule()
    await record_pods(capacity.context, [pod("stranger", "n1", 2)], now=NOW)
    await measurer.measure_gpus()
    assert gpus() == {"leased": 3, "foreign": 2, "free": 3, "out_of_use": 8}
    assert gpus("a100") == {"leased": 0, "foreign": 0, "free": 8, "out_of_use": 0}


async def test_only_what_disagrees_for_two_minutes_is_a_mismatch(
    capacity: Capacity, measurer: Measurer, clock: Turned
) -> None:
    await capacity.nodes(facts("n1"))
    job = await capacity.submit(4)
    await capacity.schedule()
    ghost = pod("ghost", "n1", 1, job_id=(await capacity.submit(8)).job_id)
    await record_pods(capacity.context, [ghost], now=NOW)
    nothing = dict.fromkeys(mismatches(), 0.0)
    await measurer.measure_gpus()
    assert mismatches() == nothing, "the lease is new"
    clock.now += MINUTE
    await measurer.measure_gpus()
    assert mismatches() == nothing
    clock.now += MINUTE
    await measurer.measure_gpus()
    assert mismatches() == nothing | {"lease_without_pod": 1, "pod_without_lease": 1}
    lease, stray = list_orphans(measurer, asker=OPERATOR, now=clock.now)
    assert (lease.finding, lease.kind, lease.name) == ("lease_without_pod", "node", "n1")
    assert (stray.finding, stray.kind, stray.name) == ("pod_without_lease", "pods", "ghost")
    assert (lease.job_id, stray.job_id) == (str(job.job_id), str(ghost.job_id))
    assert lease.since == stray.since == NOW
    with pytest.raises(OperatorsOnly):
        list_orphans(measurer, asker=msgspec.structs.replace(OPERATOR, is_operator=False), now=clock.now)

    await record_pods(capacity.context, [pod("its-own", "n1", 4, job_id=job.job_id)], now=NOW)
    await forget_pod(capacity.context, uid="ghost", resource_version=2)
    await measurer.measure_gpus()
    assert mismatches() == nothing
    assert list_orphans(measurer, asker=OPERATOR, now=clock.now) == []
    # what was away for a while begins anew
    await forget_pod(capacity.context, uid="its-own", resource_version=2)
    await measurer.measure_gpus()
    assert mismatches() == nothing


async def test_orphans_of_one_moment_are_listed_in_one_order(
    capacity: Capacity, measurer: Measurer, clock: Turned
) -> None:
    await capacity.nodes(facts("n1"))
    job_id = (await capacity.submit(8)).job_id
    for name in ("b", "c", "a"):
        await record_pods(capacity.context, [pod(name, "n1", 1, job_id=job_id)], now=NOW)
    await measurer.measure_gpus()
    clock.now += 2 * MINUTE
    found = list_orphans(measurer, asker=OPERATOR, now=clock.now)
    assert [one.name for one in found] == ["a", "b", "c"]


async def test_a_node_that_lost_devices_under_its_leases_is_overcommitted(
    capacity: Capacity, measurer: Measurer, clock: Turned
) -> None:
    await capacity.nodes(facts("n1"))
    job = await capacity.submit(8)
    await capacity.schedule()
    await record_pods(capacity.context, [pod("its-own", "n1", 8, job_id=job.job_id)], now=NOW)
    await capacity.nodes(facts("n1", gpus=7, resource_version=2))
    for _ in range(3):
        await measurer.measure_gpus()
        clock.now += MINUTE
    assert mismatches() == {"lease_without_pod": 0, "pod_without_lease": 0, "node_overcommitted": 1}
