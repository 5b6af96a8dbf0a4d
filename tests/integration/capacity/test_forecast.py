"""What those who wait are told: by explain, and how well it has held."""

import random
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from prometheus_client import REGISTRY

from services.capacity.operations.choose_zone import choose_zone
from services.capacity.operations.explain import explain_job
from services.capacity.operations.read import read_corrections, read_snapshot
from services.capacity.schemas import ClusterStatusBody
from shared.contracts.capacity import Explanation
from shared.contracts.jobs import JobCancelRequested, JobPrioritised, JobStatus
from tests.support.capacity import NOW, Capacity, about, ended, facts, later

HOUR = timedelta(hours=1)


def counted(name: str) -> float:
    return REGISTRY.get_sample_value(f"gpudev_forecast_{name}_total", {"gpu_type": "h100"}) or 0.0


async def explain(capacity: Capacity, job_id: object) -> Explanation:
    return await explain_job(capacity.context, job_id=job_id, now=NOW)  # type: ignore[arg-type]


async def test_starts_before_and_after_the_p90_that_was_told_first_are_counted(capacity: Capacity) -> None:
    now = datetime.now(UTC)  # what is counted is shown for 30 days
    starts, in_time = counted("starts"), counted("starts_in_time")
    await capacity.nodes(facts("n1"), now=now)
    at_once, early, late = [await capacity.submit(8, at=now + timedelta(seconds=number)) for number in range(3)]
    await capacity.schedule(now)
    first_told = (await capacity.entry_row(late.job_id))["first_p90_at"]
    assert now + 2 * HOUR < first_told < now + 3 * HOUR

    await capacity.apply(ended(at_once))
    await capacity.schedule(now + HOUR / 2)
    assert await capacity.leased_by(early.job_id)
    await capacity.schedule(now + 4 * HOUR)  # the new p90 is later, but the first was told too early
    await capacity.apply(ended(early))
    await capacity.schedule(now + 5 * HOUR)
    assert await capacity.leased_by(late.job_id)

    forecast = ClusterStatusBody.of(await read_snapshot(capacity.database), now).forecast
    assert (forecast.starts, forecast.started_before_p90, forecast.share) == (2, 1, 0.5)
    assert (counted("starts") - starts, counted("starts_in_time") - in_time) == (2, 1)
    # one of two is worse than nine of ten: the next are told later ones
    assert (await read_corrections(capacity.database))["h100"].factor > 1


async def test_explain_says_what_a_job_waits_for_who_is_ahead_and_what_would_start_sooner(capacity: Capacity) -> None:
    await capacity.nodes(facts("n1"))
    running = await capacity.submit(4)
    await capacity.schedule()
    head = await capacity.submit(8, at=later(seconds=1))
    behind = await capacity.submit(4, at=later(seconds=2), duration_seconds=3 * 3600)
    without_disk = await capacity.submit(1, at=later(seconds=3), waits_for_disk=True)
    await capacity.schedule()

    told = await explain(capacity, head.job_id)
    assert (told.position, told.jobs_ahead, told.gpus_ahead) == (1, 0, 0)
    assert told.reason == "Waiting for 8 h100 GPUs to come free"
    assert told.estimated_start_at is not None
    assert told.sooner[0].text == "4 GPUs instead of 8: now"

    told = await explain(capacity, behind.job_id)
    assert (told.position, told.jobs_ahead, told.gpus_ahead) == (2, 1, 8)
    assert told.reason == "Waiting for the jobs ahead of it"
    # the head is promised the end of what runs: an hour to prepare, its hour, a minute
    assert [(one.gpu_count, one.max_duration_seconds) for one in told.sooner] == [(4, 3600), (2, 3600), (1, 3600)]

    told = await explain(capacity, without_disk.job_id)
    assert (told.position, told.gpus_ahead, told.estimated_start_at, told.sooner) == (3, 12, None, ())
    assert "its disk" in (told.reason or "")

    for nobody in (running.job_id, uuid4()):
        assert not (await explain(capacity, nobody)).waiting


@pytest.mark.parametrize("many", [1, 4, 1000])
async def test_who_is_ahead_is_the_same_counted_from_either_end(
    capacity: Capacity, monkeypatch: pytest.MonkeyPatch, many: int
) -> None:
    """The simple way: all jobs of the type that wait, sorted."""
    monkeypatch.setattr("services.capacity.operations.explain._MANY_BEHIND", many)
    chance = random.Random(many)
    queue: list[tuple[tuple[int, datetime, UUID], int]] = []
    for _ in range(24):
        gpu_type = chance.choice(["h100", "h100", "a100"])
        job = await capacity.submit(chance.randint(1, 8), gpu_type, at=later(seconds=chance.randint(0, 3)))
        priority = chance.randint(-1, 1)
        await capacity.apply(about(job, JobPrioritised, JobStatus.QUEUED, priority=priority))
        if chance.random() < 0.2:
            await capacity.apply(about(job, JobCancelRequested, JobStatus.QUEUED))
        elif gpu_type == "h100":
            queue.append(((-priority, job.submitted_at, job.job_id), job.gpu_count))
    queue.sort()
    for ahead, (order, _) in enumerate(queue):
        told = await explain(capacity, order[2])
        gpus = sum(gpu_count for _, gpu_count in queue[:ahead])
        assert (told.position, told.jobs_ahead, told.gpus_ahead) == (ahead + 1, ahead, gpus)


async def test_the_zone_of_a_new_disk_is_where_its_job_starts_soonest(capacity: Capacity) -> None:
    await capacity.nodes(facts("n1", zone="a"), facts("n2", zone="b"))
    first = await capacity.submit(8)
    await capacity.schedule()
    ((taken, _), *_) = await capacity.leased_by(first.job_id)
    free = {"n1": "b", "n2": "a"}[taken]
    asked: Any = {"zones": ("a", "b"), "gpu_type": "h100", "duration": HOUR, "now": NOW}
    assert await choose_zone(capacity.context, gpu_count=8, **asked) == free
    assert await choose_zone(capacity.context, gpu_count=16, **asked) is None
