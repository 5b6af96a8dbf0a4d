"""Jobs that should have been placed: what the scheduler would place first is, and nothing that it may not place."""

from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.capacity.domain.fleet import Node
from services.capacity.domain.overdue import startable_heads
from services.capacity.domain.placement import Allocation, SchedulingPolicy, WaitingJob, gpus_by_user, schedule

NOW = datetime(2026, 1, 20, 18, 30, tzinfo=UTC)
JOB = WaitingJob(
    job_id=UUID(int=1), gpu_type="h100", gpu_count=4, submitted_at=NOW, duration=timedelta(hours=1), ready=True
)
NODE = Node(name="n1", gpu_type="h100", gpus=8, ready=True, schedulable=True, zone="a")


def heads(node: Node, *jobs: WaitingJob, users: dict[int, int] | None = None, most: int | None = None) -> list[int]:
    policy = SchedulingPolicy(most_gpus_per_user=most)
    return [job_id.int for job_id in startable_heads([node], jobs, Counter(users or {}), policy)]


def change(value: Any, **changes: Any) -> Any:
    return msgspec.structs.replace(value, **changes)


def test_the_first_job_that_fits_is_overdue() -> None:
    assert heads(NODE, change(JOB, job_id=UUID(int=2), submitted_at=NOW + timedelta(seconds=1)), JOB) == [1]


@pytest.mark.parametrize(
    ("node", "job"),
    [
        ({"leased": (0, 1, 2, 3, 4)}, {}),
        ({"foreign": 5}, {}),
        ({"ready": False}, {}),
        ({"schedulable": False}, {}),
        ({"gpu_type": "a100"}, {}),
        ({}, {"zone": "b"}),
        ({}, {"ready": False}),
        ({}, {"gpu_count": 9}),
    ],
)
def test_what_cannot_start_is_not(node: dict[str, Any], job: dict[str, Any]) -> None:
    assert heads(change(NODE, **node), change(JOB, **job)) == []


def test_behind_a_head_that_has_no_room_nobody_is() -> None:
    small = change(JOB, job_id=UUID(int=2), gpu_count=1, submitted_at=NOW + timedelta(seconds=1))
    assert heads(change(NODE, leased=(0, 1, 2, 3, 4)), JOB, small) == []


def test_a_job_beyond_its_users_limit_holds_nobody_up() -> None:
    other = change(JOB, job_id=UUID(int=2), user_id=7, submitted_at=NOW + timedelta(seconds=1))
    assert heads(NODE, JOB, other, users={0: 5}, most=8) == [2]


JOBS = st.builds(
    WaitingJob,
    job_id=st.uuids(),
    gpu_type=st.sampled_from(["h100", "a100"]),
    gpu_count=st.integers(1, 9),
    submitted_at=st.integers(0, 9).map(lambda number: NOW + timedelta(seconds=number)),
    duration=st.just(timedelta(hours=1)),
    ready=st.booleans(),
    zone=st.sampled_from([None, "a", "b"]),
    user_id=st.integers(1, 2),
    priority=st.integers(0, 2),
)
NODES = st.builds(
    Node,
    name=st.uuids().map(str),
    gpu_type=st.sampled_from(["h100", "a100"]),
    gpus=st.just(8),
    ready=st.booleans(),
    schedulable=st.booleans(),
    zone=st.sampled_from([None, "a", "b"]),
    leased=st.integers(0, 8).map(lambda number: tuple(range(number))),
    foreign=st.integers(0, 2),
)


@given(st.lists(NODES, max_size=4), st.lists(JOBS, max_size=6), st.sampled_from([None, 8]))
def test_whoever_is_called_overdue_is_placed_by_the_scheduler(
    nodes: list[Node], queue: list[WaitingJob], most: int | None
) -> None:
    policy = SchedulingPolicy(most_gpus_per_user=most)
    held = [
        Allocation(node=node.name, gpu_count=len(node.leased), user_id=1, ends_at=None) for node in nodes if node.leased
    ]
    overdue = startable_heads(nodes, queue, gpus_by_user(held), policy)
    types = {job.gpu_type for job in queue}
    for gpu_type in types:  # by itself: what is placed of one type counts for its user's limit in the next
        of_type = [job for job in queue if job.gpu_type == gpu_type]
        placed = {one.job_id for one in schedule(nodes, of_type, allocations=held, now=NOW, policy=policy)}
        assert {job.job_id for job in of_type} & set(overdue) <= placed
