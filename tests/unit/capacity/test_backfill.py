"""Backfill against the definition of what it may do: the schedule without it, reckoned node by node."""

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from uuid import UUID

from hypothesis import given, settings
from hypothesis import strategies as st

from services.capacity.domain.fleet import Node
from services.capacity.domain.placement import Allocation, SchedulingPolicy, WaitingJob, schedule

NOW = datetime(2026, 1, 20, 18, 30, tzinfo=UTC)
POLICY = SchedulingPolicy(preparation=timedelta(minutes=10), release=timedelta(minutes=1))
GPUS = 8


def after(minutes: int) -> datetime:
    return NOW + timedelta(minutes=minutes)


def waiting(number: int, gpu_count: int, minutes: int) -> WaitingJob:
    return WaitingJob(
        job_id=UUID(int=number),
        gpu_type="h100",
        gpu_count=gpu_count,
        submitted_at=after(number),
        duration=timedelta(minutes=minutes),
        ready=True,
    )


def made_of(
    number: int, runs: list[tuple[int, int]], *, broken: int = 0, foreign: int = 0
) -> tuple[Node, list[Allocation]]:
    """A node, and its jobs as GPUs and minutes to their ends; as many as fit were leased before devices broke."""
    name, allocations, held = f"n{number}", [], 0
    for gpu_count, minutes in runs:
        if held + gpu_count <= GPUS:
            held += gpu_count
            allocations.append(Allocation(node=name, gpu_count=gpu_count, ends_at=after(minutes)))
    foreign = min(foreign, GPUS - held)
    node = Node(
        name=name,
        gpu_type="h100",
        gpus=GPUS - broken,
        ready=True,
        schedulable=True,
        leased=tuple(range(held)),
        foreign=foreign,
    )
    return node, allocations


_RUNS = st.lists(st.tuples(st.sampled_from([1, 2, 3, 4, 8]), st.integers(1, 300)), max_size=4)
_NODES = st.lists(
    st.builds(
        made_of, st.just(0), _RUNS, broken=st.sampled_from([0, 0, 0, 1, 4]), foreign=st.sampled_from([0, 0, 0, 1, 5])
    ),
    min_size=1,
    max_size=3,
)
_LINE = st.lists(st.tuples(st.sampled_from([1, 1, 2, 4, 5, 8]), st.integers(5, 300)), min_size=2, max_size=7)


def first_start(gpu_count: int, nodes: Iterable[Node], allocations: list[Allocation]) -> datetime | None:
    """When so many GPUs of one node are free if everybody runs to their end; None: nobody can say."""
    starts = []
    for node in nodes:
        of_node = [
            (allocation.ends_at or NOW, allocation.gpu_count)
            for allocation in allocations
            if allocation.node == node.name
        ]
        for time in sorted({NOW, *(end for end, _ in of_node)}):
            if node.gpus - node.foreign - sum(gpus for end, gpus in of_node if end > time) >= gpu_count:
                starts.append(time)
                break
    return min(starts, default=None)


@settings(max_examples=400)
@given(_NODES, _LINE)
def test_the_head_starts_no_later_than_it_would_without_backfill(
    made: list[tuple[Node, list[Allocation]]], wanted: list[tuple[int, int]]
) -> None:
    nodes, allocations = [], []
    for number, (node, of_node) in enumerate(made):
        fields = {name: getattr(node, name) for name in Node.__struct_fields__} | {"name": f"n{number}"}
        nodes.append(Node(**fields))
        allocations += [
            Allocation(node=f"n{number}", gpu_count=allocation.gpu_count, ends_at=allocation.ends_at)
            for allocation in of_node
        ]
    queue = [waiting(number, *fields) for number, fields in enumerate(wanted)]
    placements = schedule(nodes, queue, allocations=allocations, now=NOW, policy=POLICY)

    def lease(job_id: UUID, node: str) -> Allocation:
        job = queue[job_id.int]
        ends_at = NOW + timedelta(minutes=10) + job.duration + timedelta(minutes=1)
        return Allocation(node=node, gpu_count=job.gpu_count, ends_at=ends_at)

    in_turn = [lease(one.job_id, one.node) for one in placements if not one.backfilled]
    everybody = [lease(one.job_id, one.node) for one in placements]
    possible = [job for job in queue if any(node.gpus >= job.gpu_count for node in nodes)]
    started = {one.job_id for one in placements}
    head = next((job for job in possible if job.job_id not in started), None)
    if head is None:
        return
    promised = first_start(head.gpu_count, nodes, allocations + in_turn)
    assert promised is None or promised > NOW, "the head could have started"
    start = first_start(head.gpu_count, nodes, allocations + everybody)
    assert promised is None or (start is not None and start <= promised)


def test_a_whole_node_job_is_not_starved_by_small_ones_that_never_stop_coming() -> None:
    node, allocations = made_of(0, [(1, minutes) for minutes in (30, 60, 90, 120)])
    big, promised = waiting(0, 8, 60), after(120)
    running, now, small = allocations, NOW, 1
    while now <= promised:
        leased = tuple(range(sum(allocation.gpu_count for allocation in running)))
        queue = [big, *(waiting(small + more, 1, 20 + 10 * more) for more in range(12))]
        small += len(queue)
        busy = Node(name=node.name, gpu_type="h100", gpus=GPUS, ready=True, schedulable=True, leased=leased)
        placed = schedule([busy], queue, allocations=running, now=now, policy=POLICY)
        lengths = {job.job_id: job.duration for job in queue}
        if any(one.job_id == big.job_id for one in placed):
            break
        running += [
            Allocation(node=node.name, gpu_count=1, ends_at=POLICY.latest_end(now, lengths[one.job_id]))
            for one in placed
        ]
        now += timedelta(minutes=5)
        running = [allocation for allocation in running if allocation.ends_at is None or allocation.ends_at > now]
    assert now == promised
    assert small > 200
