"""What somebody who looks at the cluster is shown, and what is not for them to know."""

from datetime import timedelta
from typing import Any

import pytest

from services.capacity.domain.choices import Choice
from services.capacity.operations.show import show_choices, show_fleet, show_queue
from services.capacity.schemas import Fleet, Queue
from shared.contracts.auth import Identity
from tests.support.capacity import NOW, Capacity, facts, later
from tests.support.capacity_stage import Stage

HOUR = timedelta(hours=1)


def asker(user_id: int, *, is_operator: bool = False) -> Identity:
    return Identity(user_id=user_id, username="ann", key_id="k", expires_at=NOW + HOUR, is_operator=is_operator)


async def choices(capacity: Capacity, hours: float, user_id: int = 1) -> dict[tuple[str, int], Choice]:
    found = await show_choices(capacity.context, asker=asker(user_id), duration=hours * HOUR, now=NOW)
    return {(one.gpu_type, one.gpu_count): one for one in found}


async def test_each_gpu_is_free_ones_own_or_somebody_elses(capacity: Capacity) -> None:
    await capacity.nodes(facts("n1"), facts("n2", "a100", 4, schedulable=False))
    mine, theirs = await capacity.submit(2, user_id=1), await capacity.submit(4, user_id=2)
    await capacity.schedule()

    shown = await show_fleet(capacity.context, asker=asker(1))
    first, second = Fleet.of(shown.nodes, shown.as_of, NOW).nodes

    states = [gpu.state.value for gpu in first.gpus]
    assert (states.count("own"), states.count("others"), states.count("free")) == (2, 4, 2)
    assert {gpu.job_id for gpu in first.gpus if gpu.state == "own"} == {mine.job_id}
    assert {gpu.job_id for gpu in first.gpus if gpu.state == "others"} == {None}
    assert (second.name, second.total, second.ready, second.schedulable) == ("n2", 4, True, False)
    for_operators = (await show_fleet(capacity.context, asker=asker(9, is_operator=True))).nodes[0][1]
    assert {gpu.job_id for gpu in for_operators} == {mine.job_id, theirs.job_id, None}


async def test_the_queue_is_told_in_its_order_without_saying_whose_the_jobs_are(capacity: Capacity) -> None:
    await capacity.nodes(facts("n1"))
    await capacity.submit(8, user_id=3)
    await capacity.schedule()
    last = await capacity.submit(2, at=later(seconds=2), user_id=1)
    first = await capacity.submit(8, at=later(seconds=1), user_id=2)
    await capacity.schedule()

    (queue,) = Queue.of(await show_queue(capacity.context), asker(1), NOW).queues

    assert (queue.gpu_type, queue.jobs, queue.gpus) == ("h100", 2, 10)
    told = [(entry.position, entry.own, entry.job_id, entry.gpu_count) for entry in queue.entries]
    assert told == [(1, False, None, 8), (2, True, last.job_id, 2)]
    assert all(entry.estimated_start_time and entry.estimated_start_time_p90 for entry in queue.entries)
    (for_operators,) = Queue.of(await show_queue(capacity.context), asker(9, is_operator=True), NOW).queues
    assert [entry.job_id for entry in for_operators.entries] == [first.job_id, last.job_id]


async def test_what_would_start_now_is_what_then_starts(capacity: Capacity) -> None:
    await capacity.nodes(facts("n1"), facts("n2", "l4", 4))
    await capacity.submit(4, duration_seconds=3600)
    await capacity.schedule()

    found = await choices(capacity, 2)

    assert list(found) == [("h100", 1), ("h100", 2), ("h100", 4), ("h100", 8), ("l4", 1), ("l4", 2), ("l4", 4)]
    assert [size for size, one in found.items() if not one.starts_now] == [("h100", 8)]
    whole = found["h100", 8]
    assert whole.reason == "Waiting for 8 h100 GPUs to come free"
    assert whole.estimate is not None
    assert NOW < whole.estimate.p50 <= whole.estimate.p90
    four, eight = await capacity.submit(4, at=NOW), await capacity.submit(8, at=NOW)
    await capacity.schedule()
    assert len(await capacity.leased_by(four.job_id)) == 4
    assert not await capacity.leased_by(eight.job_id)


async def test_a_short_job_goes_ahead_of_the_head_and_a_long_one_does_not(capacity: Capacity) -> None:
    """As one types the hours: what would delay the head of the queue waits behind it."""
    await capacity.nodes(facts("n1"))
    await capacity.submit(4, duration_seconds=10 * 3600)
    await capacity.schedule()
    await capacity.submit(8, at=later(seconds=1))
    await capacity.schedule()
    assert (await choices(capacity, 1))["h100", 4].starts_now
    long = (await choices(capacity, 24))["h100", 4]
    assert not long.starts_now
    assert long.reason == "Waiting for the jobs ahead of it"


@pytest.mark.parametrize("hours", ["0", "-1", "NaN", "Infinity", "169", "x", "1e400"])
async def test_hours_that_no_job_can_have_are_refused(stage: Stage, hours: str) -> None:
    answer = await stage.get(f"/v1/gpu/estimates?duration_hours={hours}")
    assert answer.status_code == 400, answer.text
    assert answer.json()["detail"][0]["loc"] == ["query", "duration_hours"]


async def test_the_routes_answer(stage: Stage) -> None:
    nodes: dict[str, Any] = (await stage.get("/v1/cluster/nodes")).json()
    assert nodes["nodes"] == [
        {
            "name": "l4-1",
            "gpu_type": "l4",
            "zone": None,
            "ready": True,
            "schedulable": True,
            "total": 4,
            "gpus": [{"state": "free", "job_id": None}] * 4,
        }
    ]
    assert (await stage.get("/v1/gpu/queue")).json()["queues"] == []
    estimates = (await stage.get("/v1/gpu/estimates?duration_hours=0.5")).json()
    assert [(one["gpu_count"], one["starts_now"]) for one in estimates["choices"]] == [(1, True), (2, True), (4, True)]
    for path in ("/v1/cluster/nodes", "/v1/gpu/queue", "/v1/gpu/estimates"):
        assert (await stage.client.get(path)).status_code == 401
