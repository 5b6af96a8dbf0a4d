"""Every fact that changes the plan moves the estimates, `explain` and the event, and does so at once."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from shared.contracts.jobs import (
    JobCancelRequested,
    JobEvent,
    JobExpiring,
    JobExtended,
    JobLost,
    JobPrioritised,
    JobReady,
    JobRequeued,
    JobStarted,
    JobStatus,
    JobSubmitted,
)
from tests.support.capacity import about, ended, submitted
from tests.support.capacity_stage import L4, Stage
from tests.support.harness import eventually

MINUTE = timedelta(minutes=1)
SOON, LATE = 5 * MINUTE, 60 * MINUTE
"""When `first` and `second` end."""
NEAR_POSITIONS = 2 * MINUTE
"""What preparing a pod and making an estimate may take."""


@dataclass
class Scene:
    """Two nodes of four GPUs: `first` and `second` hold one each, `third` and `fourth` wait for one each."""

    stage: Stage
    began: datetime
    unready: JobSubmitted
    first: JobSubmitted
    second: JobSubmitted
    third: JobSubmitted
    fourth: JobSubmitted
    sequence: int = 10

    async def tell(self, event: JobEvent) -> None:
        """The jobs service says this."""
        self.sequence += 1
        await self.stage.publish(event, self.sequence)

    async def until_told(self, job: JobSubmitted, start: timedelta) -> None:
        """Wait until the event and `explain` name this start."""

        def is_near(at: datetime | None) -> bool:
            return at is not None and abs(at - self.began - start) < NEAR_POSITIONS

        async def known() -> bool:
            told = self.stage.told.get(job.job_id)
            explained = await self.stage.explain(job)
            return told is not None and is_near(told.estimated_start_at) and is_near(explained.estimated_start_at)

        await eventually(known, f"told to start in {start}")


async def running(stage: Stage, began: datetime, node: str, left: timedelta) -> JobSubmitted:
    job = submitted(4, "l4", at=began - 2 * LATE, duration_seconds=round((55 * MINUTE + left).total_seconds()))
    await stage.publish(job, 1)
    lease = await stage.grant_of(job)
    assert lease.node == node
    times = {"started_at": began - 55 * MINUTE, "expires_at": began + left}
    await stage.publish(about(job, JobStarted, JobStatus.ACTIVE, node=node, epoch=1, **times), 3)
    return job


@pytest.fixture
async def scene(stage: Stage) -> Scene:
    began = datetime.now(UTC)
    first = await running(stage, began, "l4-1", SOON)
    await stage.cluster.put_node("l4-2", L4, 4)
    second = await running(stage, began, "l4-2", LATE)
    waits = {"waits_for_disk": True, "status": JobStatus.PENDING}
    unready = submitted(4, "l4", at=began - LATE, **waits)
    third, fourth = submitted(4, "l4", at=began), submitted(4, "l4", at=began + timedelta(seconds=1))
    for job in (unready, third, fourth):
        await stage.publish(job, 1)
    scene = Scene(stage, began, unready, first, second, third, fourth)
    await scene.until_told(third, SOON)
    await scene.until_told(fourth, LATE)
    return scene


async def _extension(scene: Scene) -> None:
    end = {"expires_at": scene.began + SOON + 2 * LATE, "extension_seconds": 7200}
    await scene.tell(about(scene.first, JobExtended, JobStatus.ACTIVE, **end))


async def _warning_after_an_extension_that_was_not_heard_of(scene: Scene) -> None:
    end = {"expires_at": scene.began + 30 * MINUTE, "minutes_left": 30}
    await scene.tell(about(scene.first, JobExpiring, JobStatus.ACTIVE, **end))


async def _end(scene: Scene) -> None:
    await scene.tell(ended(scene.second))


async def _cancel_of_what_runs(scene: Scene) -> None:
    await scene.tell(about(scene.second, JobCancelRequested, JobStatus.ACTIVE))


async def _loss(scene: Scene) -> None:
    lost = {"node": "l4-2", "epoch": 1, "reason": "gone"}
    await scene.tell(about(scene.second, JobLost, JobStatus.FAILED, **lost))


async def _cancel_of_what_waits(scene: Scene) -> None:
    await scene.tell(about(scene.third, JobCancelRequested, JobStatus.QUEUED))


async def _priority(scene: Scene) -> None:
    await scene.tell(about(scene.fourth, JobPrioritised, JobStatus.QUEUED, priority=10))


async def _disk(scene: Scene) -> None:
    await scene.tell(about(scene.unready, JobReady, JobStatus.QUEUED))


async def _requeue(scene: Scene) -> None:
    await scene.tell(about(scene.first, JobRequeued, JobStatus.QUEUED, epoch=1, reason="no room"))


async def _submission_ahead(scene: Scene) -> None:
    await scene.tell(submitted(4, "l4", at=scene.began - MINUTE))


async def _cordon(scene: Scene) -> None:
    await scene.stage.cluster.put_node("l4-1", L4, 4, unschedulable=True)


async def _node_not_ready(scene: Scene) -> None:
    await scene.stage.cluster.put_node("l4-1", L4, 4, ready=False)


async def _node_removed(scene: Scene) -> None:
    await scene.stage.cluster.remove("nodes", "l4-1")


async def _node_added(scene: Scene) -> None:
    await scene.stage.cluster.put_node("l4-3", L4, 4)


async def _foreign_pod(scene: Scene) -> None:
    await scene.stage.cluster.put_pod("foreign", "l4-1", 4)


@pytest.mark.parametrize(
    ("fact", "third", "fourth"),
    [
        (_extension, LATE, 2 * LATE),
        (_warning_after_an_extension_that_was_not_heard_of, 30 * MINUTE, LATE),
        (_end, None, SOON),
        (_cancel_of_what_runs, 0 * MINUTE, SOON),
        (_loss, 0 * MINUTE, SOON),
        (_cancel_of_what_waits, None, SOON),
        (_priority, LATE, SOON),
        (_disk, LATE, SOON + LATE),
        (_requeue, LATE, LATE),
        (_submission_ahead, LATE, SOON + LATE),
        (_cordon, LATE, 2 * LATE),
        (_node_not_ready, LATE, 2 * LATE),
        (_node_removed, LATE, 2 * LATE),
        (_node_added, None, SOON),
        (_foreign_pod, LATE, 2 * LATE),
    ],
)
async def test_a_fact_moves_what_those_who_wait_are_told(
    scene: Scene, fact: Callable[[Scene], Awaitable[Any]], third: timedelta | None, fourth: timedelta
) -> None:
    await fact(scene)
    if third is not None:
        await scene.until_told(scene.third, third)
    await scene.until_told(scene.fourth, fourth)


@pytest.mark.parametrize("fact", [_cordon, _node_not_ready])
async def test_a_node_that_is_well_again_moves_it_back(scene: Scene, fact: Callable[[Scene], Awaitable[Any]]) -> None:
    await fact(scene)
    await scene.until_told(scene.third, LATE)
    await scene.stage.cluster.put_node("l4-1", L4, 4)
    await scene.until_told(scene.third, SOON)


async def test_a_foreign_pod_that_goes_moves_it_back(scene: Scene) -> None:
    await _foreign_pod(scene)
    await scene.until_told(scene.third, LATE)
    await scene.stage.cluster.remove("pods", "foreign")
    await scene.until_told(scene.third, SOON)


@pytest.mark.parametrize("stage", [8], indirect=True)
async def test_who_is_held_up_by_a_limit_is_told_of_an_extension_of_their_own_job(scene: Scene) -> None:
    await _node_added(scene)
    await eventually(lambda: "allowed" in str(scene.stage.told[scene.third.job_id].reason), "the limit is the reason")
    await scene.until_told(scene.third, SOON)
    await _extension(scene)
    await scene.until_told(scene.third, LATE)
