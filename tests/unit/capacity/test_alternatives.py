"""What would start sooner."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

from msgspec import structs

from services.capacity.domain.alternatives import find_alternatives
from services.capacity.domain.estimates import Estimate
from services.capacity.domain.fleet import Node
from services.capacity.domain.placement import Allocation, SchedulingPolicy, WaitingJob, schedule
from shared.contracts.capacity import Sooner
from tests.support.capacity import capacity_settings

NOW = datetime(2026, 1, 20, 18, 30, tzinfo=UTC)
POLICY = SchedulingPolicy(preparation=timedelta(minutes=9), release=timedelta(minutes=1))


def node(name: str, leased: int = 0, gpu_type: str = "h100") -> Node:
    return Node(name=name, gpu_type=gpu_type, gpus=8, ready=True, schedulable=True, leased=tuple(range(leased)))


def job(number: int, gpu_count: int = 8, **changes: object) -> WaitingJob:
    waiting = WaitingJob(
        job_id=UUID(int=number),
        gpu_type="h100",
        gpu_count=gpu_count,
        submitted_at=NOW + timedelta(seconds=number),
        duration=timedelta(hours=8),
        ready=True,
    )
    return structs.replace(waiting, **changes)


def allocation(name: str, gpu_count: int, hours: float) -> Allocation:
    return Allocation(node=name, gpu_count=gpu_count, ends_at=NOW + timedelta(hours=hours))


def sooner(
    nodes: list[Node],
    queue: list[WaitingJob],
    one: WaitingJob,
    allocations: list[Allocation],
    starts: dict[int, float] | None = None,
) -> list[Sooner]:
    estimates = {
        count: Estimate(p50=NOW + timedelta(hours=hours), p90=NOW + timedelta(hours=hours))
        for count, hours in (starts or {}).items()
    }
    return list(
        find_alternatives(nodes, queue, one, allocations=allocations, now=NOW, policy=POLICY, estimates=estimates)
    )


def test_fewer_gpus_that_are_free_start_now() -> None:
    (half, *_) = sooner([node("n1", 4)], [job(1)], job(1), [allocation("n1", 4, 3)])
    assert (half.gpu_count, half.start_at, half.text) == (4, None, "4 GPUs instead of 8: now")


def test_a_time_box_that_ends_before_the_head_needs_the_gpus_starts_now() -> None:
    nodes, allocations = [node("n1", 4), node("n2", 8)], [allocation("n1", 4, 3), allocation("n2", 8, 9)]
    (shorter, *_) = sooner(nodes, [job(1), job(2, 4)], job(2, 4), allocations)
    # three hours until the head's start, less nine minutes to prepare and one to release
    assert (shorter.gpu_count, shorter.max_duration_seconds) == (4, 170 * 60)
    assert shorter.text == "at most 2 h 50 min instead of 8 h: now"


def test_one_gpu_for_a_shorter_time_is_told_as_one() -> None:
    nodes, allocations = [node("n1", 7), node("n2", 8)], [allocation("n1", 7, 3), allocation("n2", 8, 9)]
    found = sooner(nodes, [job(1), job(2, 2)], job(2, 2), allocations)
    assert [one.text for one in found] == ["1 GPU instead of 2 and at most 2 h 50 min instead of 8 h: now"]


def test_a_time_box_that_is_shorter_by_seconds_reads_so() -> None:
    nodes, allocations = [node("n1", 4), node("n2", 8)], [allocation("n1", 4, 0.5), allocation("n2", 8, 9)]
    one = job(2, 4, duration=timedelta(seconds=round(0.334 * 3600)))
    (shorter, *_) = sooner(nodes, [job(1), one], one, allocations)
    assert shorter.text == "at most 20 min instead of 20 min 2 s: now"


def test_the_job_at_the_head_is_not_told_that_it_delays_itself() -> None:
    found = sooner([node("n1", 4)], [job(1)], job(1), [allocation("n1", 4, 3)])
    assert all(one.max_duration_seconds is None for one in found)


def test_fewer_gpus_that_start_before_the_whole_are_told_with_their_time() -> None:
    nodes, queue = [node("n1", 8)], [job(1)]
    found = sooner(nodes, queue, job(1), [allocation("n1", 8, 3)], {8: 3, 4: 2, 2: 3, 1: 1})
    assert [(one.gpu_count, one.start_at) for one in found] == [
        (4, NOW + timedelta(hours=2)),
        (1, NOW + timedelta(hours=1)),
    ]
    assert found[0].text == "4 GPUs instead of 8: about 2026-01-20 20:30 UTC"


def test_a_start_that_would_be_told_as_the_same_is_not_sooner() -> None:
    second = 1 / 3600
    starts = {8: 3 + 50 * second, 4: 3 + 10 * second, 2: 3 - second}
    found = sooner([node("n1", 8)], [job(1)], job(1), [allocation("n1", 8, 3)], starts)
    assert [one.text for one in found] == ["2 GPUs instead of 8: about 2026-01-20 21:29 UTC"]


def test_another_gpu_type_that_is_free_is_named_unless_a_disk_ties_the_job_to_a_zone() -> None:
    nodes, allocations = [node("n1", 8), node("a1", gpu_type="a100")], [allocation("n1", 8, 3)]
    assert [one.text for one in sooner(nodes, [job(1)], job(1), allocations)] == ["8 a100 GPUs instead of h100: now"]
    assert sooner(nodes, [job(1, zone="z")], job(1, zone="z"), allocations) == []


def test_nothing_is_promised_on_what_the_jobs_ahead_will_take() -> None:
    assert sooner([node("n1", 4)], [job(1, 4), job(2, 4)], job(2, 4), [allocation("n1", 4, 3)]) == []


def test_the_example_of_the_docs() -> None:
    noon, policy = datetime(2026, 1, 20, 12, tzinfo=UTC), capacity_settings().policy()
    node_of_a = [node("n1", 4)]
    a = Allocation(node="n1", gpu_count=4, ends_at=datetime(2026, 1, 20, 15, 1, tzinfo=UTC))
    b, c, d = job(1), job(2, 4, duration=timedelta(hours=1)), job(3, 4, duration=timedelta(hours=3))
    for queue, started in (([b, c, d], [c]), ([b, d], [])):
        placed = schedule(node_of_a, queue, allocations=[a], now=noon, policy=policy)
        assert [one.job_id for one in placed] == [one.job_id for one in started]
    (shorter, *_) = find_alternatives(node_of_a, [b, d], d, allocations=[a], now=noon, policy=policy, estimates={})
    assert shorter.text == "at most 2 h instead of 3 h: now"
    text = (Path(__file__).parents[3] / "docs" / "queue.md").read_text()
    assert " ".join(f'"{shorter.text}"'.split()) in " ".join(text.split())
