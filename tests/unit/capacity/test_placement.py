"""Rules of placement, of the queue and of availability, over any fleet."""

from datetime import UTC, datetime, timedelta
from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from services.capacity.domain.availability import QueueCount, Snapshot, count_availability, count_cluster
from services.capacity.domain.estimates import Correction, Estimate, Facts, estimate_each, estimate_starts
from services.capacity.domain.fleet import Node
from services.capacity.domain.free_gpus import NodeSizes
from services.capacity.domain.lease import Lease, Runs
from services.capacity.domain.placement import Allocation, Placement, SchedulingPolicy, WaitingJob
from services.capacity.domain.placement import schedule as schedule_queue
from services.capacity.domain.queue_entry import EntryState
from services.capacity.domain.reasons import BEHIND, reasons
from shared.contracts.jobs import JobStatus

NOW = datetime(2026, 1, 20, 18, 30, tzinfo=UTC)
POLICY = SchedulingPolicy()
TYPES = st.sampled_from(["h100", "a100"])
ZONES = st.sampled_from([None, "a", "b"])


@st.composite
def nodes(draw: st.DrawFn) -> list[Node]:
    def node(number: int) -> Node:
        gpus = draw(st.integers(0, 8))
        return Node(
            name=f"n{number}",
            gpu_type=draw(TYPES),
            gpus=gpus,
            ready=draw(st.booleans()),
            schedulable=draw(st.booleans()),
            zone=draw(ZONES),
            leased=tuple(sorted(draw(st.sets(st.integers(0, 7), max_size=8)))),
            foreign=draw(st.integers(0, 9)),
        )

    return [node(number) for number in range(draw(st.integers(0, 5)))]


@st.composite
def queues(draw: st.DrawFn) -> list[WaitingJob]:
    count = draw(st.integers(0, 8))
    queue = [
        WaitingJob(
            job_id=UUID(int=number),
            gpu_type=draw(TYPES),
            gpu_count=draw(st.sampled_from([1, 2, 4, 8])),
            submitted_at=NOW + timedelta(seconds=draw(st.integers(0, 3))),
            duration=timedelta(hours=1),
            ready=draw(st.booleans()),
            zone=draw(ZONES),
        )
        for number in range(count)
    ]
    return draw(st.permutations(queue))


def job(number: int, gpu_count: int, **changes: object) -> WaitingJob:
    waiting = WaitingJob(
        job_id=UUID(int=number),
        gpu_type="h100",
        gpu_count=gpu_count,
        submitted_at=NOW + timedelta(seconds=number),
        duration=timedelta(hours=1),
        ready=True,
    )
    return structs.replace(waiting, **changes)


def node(name: str, leased: int = 0, **changes: object) -> Node:
    whole = Node(name=name, gpu_type="h100", gpus=8, ready=True, schedulable=True, leased=tuple(range(leased)))
    return structs.replace(whole, **changes)


def schedule(
    fleet: list[Node],
    queue: list[WaitingJob],
    allocations: list[Allocation] | None = None,
    policy: SchedulingPolicy = POLICY,
) -> list[Placement]:
    return schedule_queue(fleet, queue, allocations=allocations or [], now=NOW, policy=policy)


def lease(number: int, node_name: str, gpu_count: int = 8, **changes: object) -> Lease:
    whole = Lease(
        job_id=UUID(int=number),
        node=node_name,
        gpu_count=gpu_count,
        user_id=1,
        duration=timedelta(hours=2),
        granted_at=NOW,
        started_at=NOW,
        expires_at=NOW + timedelta(hours=2),
        cancelling=False,
        status=JobStatus.ACTIVE,
    )
    return structs.replace(whole, **changes)


@given(nodes(), queues())
def test_no_gpu_is_given_twice_and_no_node_more_than_it_has(fleet: list[Node], queue: list[WaitingJob]) -> None:
    known = {one.name: one for one in fleet}
    given_away = {one.name: list(one.leased) for one in fleet}
    for placement in schedule(fleet, queue):
        target = known[placement.node]
        assert target.usable
        given_away[placement.node] += placement.gpu_indexes
        assert all(0 <= index < target.gpus for index in placement.gpu_indexes)
        assert len(given_away[placement.node]) + target.foreign <= target.gpus
    assert all(len(indexes) == len(set(indexes)) for indexes in given_away.values())


@given(nodes(), queues())
def test_jobs_get_what_they_asked_for_once_and_only_when_ready(fleet: list[Node], queue: list[WaitingJob]) -> None:
    jobs = {waiting.job_id: waiting for waiting in queue}
    known = {one.name: one for one in fleet}
    placements = schedule(fleet, queue)
    assert len({placement.job_id for placement in placements}) == len(placements)
    for placement in placements:
        waiting, target = jobs[placement.job_id], known[placement.node]
        assert waiting.ready
        assert len(placement.gpu_indexes) == waiting.gpu_count
        assert waiting.gpu_type == target.gpu_type
        assert waiting.zone in {None, target.zone} or target.zone is None


@given(nodes(), queues())
def test_nobody_overtakes_the_head_but_by_backfill(fleet: list[Node], queue: list[WaitingJob]) -> None:
    placed = {placement.job_id: placement for placement in schedule(fleet, queue)}
    for gpu_type in ("h100", "a100"):
        types = [one for one in fleet if one.gpu_type == gpu_type]
        sizes = NodeSizes(types)
        ready = [one for one in queue if one.gpu_type == gpu_type and one.ready]
        queue = sorted((one for one in ready if sizes.fits(one.gpu_count, one.zone)), key=lambda one: one.order)
        waits = False
        for waiting in queue:
            waits |= waiting.job_id not in placed
            assert waiting.job_id not in placed or placed[waiting.job_id].backfilled == waits


@given(nodes(), queues())
def test_a_second_round_places_nothing_more(fleet: list[Node], queue: list[WaitingJob]) -> None:
    placements = schedule(fleet, queue)
    taken = {p.job_id for p in placements}
    jobs = {waiting.job_id: waiting for waiting in queue}
    held = [
        Allocation(node=p.node, gpu_count=len(p.gpu_indexes), ends_at=POLICY.latest_end(NOW, jobs[p.job_id].duration))
        for p in placements
    ]
    after = [
        structs.replace(
            one, leased=(*one.leased, *(i for p in placements if p.node == one.name for i in p.gpu_indexes))
        )
        for one in fleet
    ]
    assert schedule(after, [waiting for waiting in queue if waiting.job_id not in taken], held) == []


def test_the_fullest_node_that_fits_is_filled_and_whole_nodes_stay_free() -> None:
    placements = schedule([node("empty"), node("fuller", 6), node("full", 7)], [job(1, 2), job(2, 8)])
    assert [(p.node, p.gpu_indexes) for p in placements] == [("fuller", (6, 7)), ("empty", tuple(range(8)))]


def test_a_job_too_large_for_what_is_left_of_its_nodes_does_not_block_the_queue() -> None:
    broken = node("broken", gpus=7)
    assert [p.job_id.int for p in schedule([broken], [job(1, 8), job(2, 4)])] == [2]


def test_a_job_that_fits_only_a_cordoned_node_lets_others_have_the_small_ones() -> None:
    fleet = [node("cordoned", schedulable=False), node("small", gpus=4)]
    assert [(p.job_id.int, p.backfilled) for p in schedule(fleet, [job(1, 8), job(2, 4)])] == [(2, True)]


def allocation(node_name: str, gpu_count: int, hours: float | None) -> Allocation:
    return Allocation(
        node=node_name, gpu_count=gpu_count, ends_at=None if hours is None else NOW + timedelta(hours=hours)
    )


def test_backfill_on_the_node_kept_for_the_head_only_if_it_ends_in_time() -> None:
    fleet, allocations = [node("n1", 4)], [allocation("n1", 4, 4)]
    # an hour to prepare, a minute to release
    fits = job(2, 4, duration=timedelta(hours=2, minutes=59))
    assert [p.job_id.int for p in schedule(fleet, [job(1, 8), fits], allocations)] == [2]
    assert schedule(fleet, [job(1, 8), structs.replace(fits, duration=timedelta(hours=3))], allocations) == []


def test_backfill_goes_past_the_heads_start_on_gpus_that_the_head_leaves_over() -> None:
    fleet, allocations = [node("n1", 7)], [allocation("n1", 4, 4), allocation("n1", 3, 6)]
    assert [p.job_id.int for p in schedule(fleet, [job(1, 4), job(2, 1, duration=timedelta(days=3))], allocations)] == [
        2
    ]
    assert schedule(fleet, [job(1, 5), job(2, 1, duration=timedelta(days=3))], allocations) == []


def test_backfill_takes_other_nodes_than_the_one_kept_for_the_head() -> None:
    fleet, allocations = [node("n1", 4), node("n2", 4)], [allocation("n1", 4, 9), allocation("n2", 4, 3)]
    placed = schedule(fleet, [job(1, 8), job(2, 4, duration=timedelta(days=3))], allocations)
    assert [(p.job_id.int, p.node) for p in placed] == [(2, "n1")]


def test_nothing_is_backfilled_on_the_node_of_a_head_whose_start_nobody_knows() -> None:
    fleet = [node("n1", foreign=4)]
    assert schedule(fleet, [job(1, 8), job(2, 1, duration=timedelta(minutes=5))]) == []


def test_an_extended_lease_moves_the_promise_to_the_head() -> None:
    fleet, short = [node("n1", 4), node("n2", 4)], job(2, 4, duration=timedelta(hours=3))
    assert [p.node for p in schedule(fleet, [job(1, 8), short], [allocation("n1", 4, 5), allocation("n2", 4, 9)])] == [
        "n1"
    ]
    # n1's job is extended: n2 is the head's node now
    assert [p.node for p in schedule(fleet, [job(1, 8), short], [allocation("n1", 4, 20), allocation("n2", 4, 3)])] == [
        "n1"
    ]


def test_a_job_with_a_higher_priority_is_ahead_of_those_submitted_before_it() -> None:
    placed = schedule([node("n1")], [job(1, 8), job(2, 8, priority=1)])
    assert [p.job_id.int for p in placed] == [2]


def test_a_job_beyond_its_users_limit_waits_and_holds_nobody_up() -> None:
    policy = SchedulingPolicy(most_gpus_per_user=8)
    queue = [job(1, 4, user_id=7), job(2, 4, user_id=8)]
    placed = schedule(
        [node("n1"), node("n2", 8)], queue, [Allocation(node="n2", gpu_count=8, user_id=7, ends_at=None)], policy
    )
    assert [p.job_id.int for p in placed] == [2]
    three = [job(number, 4, user_id=7) for number in (1, 2, 3)]
    assert [p.job_id.int for p in schedule([node("n1"), node("n2")], three, policy=policy)] == [1, 2]
    held = [Allocation(node="n1", gpu_count=4, user_id=7, ends_at=None)]
    assert "You hold 4 GPUs" in reasons([node("n1", 4)], [job(1, 8, user_id=7)], held, policy)[UUID(int=1)]


def test_the_node_where_a_pod_found_no_room_is_taken_only_if_no_other_fits() -> None:
    queue = [job(1, 8, avoids="n1")]
    assert [p.node for p in schedule([node("n1"), node("n2")], queue)] == ["n2"]
    assert [p.node for p in schedule([node("n1")], queue)] == ["n1"]


def test_a_failed_device_under_a_lease_is_paid_back_before_the_head_is_promised_anything() -> None:
    fleet = [node("n1", 8, gpus=7), node("n2", 6, gpus=7)]
    allocations = [allocation("n1", 4, 1), allocation("n1", 4, 2), allocation("n2", 3, None), allocation("n2", 3, 1.5)]
    # four of n1's eight held GPUs come back in an hour, but only three of them are left: n2 is first, and its last
    # free GPU is the head's
    assert schedule(fleet, [job(1, 4), job(2, 1, duration=timedelta(hours=3))], allocations) == []


def test_a_job_starts_where_its_disk_is() -> None:
    fleet = [node("a", 4, zone="a"), node("b", zone="b")]
    assert [p.node for p in schedule(fleet, [job(1, 2, zone="b"), job(2, 2)])] == ["b", "a"]


COUNTS = st.lists(
    st.builds(
        QueueCount,
        gpu_type=st.sampled_from(["h100", "a100", "b200", "unheard-of"]),
        state=st.sampled_from(EntryState),
        ready=st.booleans(),
        cancelling=st.booleans(),
        status=st.sampled_from(JobStatus),
        jobs=st.integers(1, 5),
        gpus=st.integers(1, 40),
    ),
    max_size=6,
)


@given(nodes(), COUNTS)
def test_total_is_available_plus_in_use_and_nothing_is_negative(fleet: list[Node], counts: list[QueueCount]) -> None:
    snapshot = Snapshot(nodes=tuple(fleet), counts=tuple(counts), as_of=NOW)
    for entry in count_availability(snapshot):
        assert entry.total == entry.available + entry.in_use
        assert min(entry.total, entry.available, entry.in_use, entry.queued, entry.max_placeable) >= 0
        assert entry.max_placeable <= min(entry.available, entry.max_per_node)
        usable = [one for one in entry.nodes if one.ready and one.schedulable]
        assert entry.total == sum(one.gpus for one in usable)


@given(nodes(), COUNTS)
def test_cluster_status_never_disagrees_with_availability(fleet: list[Node], counts: list[QueueCount]) -> None:
    snapshot = Snapshot(nodes=tuple(fleet), counts=tuple(counts), as_of=NOW)
    status = count_cluster(snapshot)
    assert status.types == count_availability(snapshot)
    assert (status.jobs[JobStatus.QUEUED] > 0) == any(entry.queued for entry in status.types)
    assert sum(status.jobs.values()) <= sum(count.jobs for count in counts)


@given(nodes(), queues())
def test_what_availability_calls_placeable_can_be_scheduled(fleet: list[Node], queue: list[WaitingJob]) -> None:
    del queue
    for entry in count_availability(Snapshot(nodes=tuple(fleet), counts=(), as_of=None)):
        largest = entry.max_placeable
        anywhere = {"gpu_type": entry.gpu_type}
        assert not schedule(fleet, [job(1, largest + 1, **anywhere)])
        assert not largest or schedule(fleet, [job(1, largest, **anywhere)])


MINUTE = timedelta(minutes=1)


def estimate(
    fleet: list[Node], leases: list[Lease], queue: list[WaitingJob], *, shares: tuple[float, ...] = (), **more: object
) -> dict[int, Estimate | None]:
    facts = Facts(nodes=fleet, leases=leases, runs=Runs.of(shares, ()), **more)
    found = estimate_starts(facts, queue, now=NOW, policy=POLICY)
    return {job_id.int: one for job_id, one in found.items()}


def test_estimates_are_the_ends_of_leases_and_of_those_ahead_as_long_as_nothing_was_measured() -> None:
    end = NOW + timedelta(hours=2)
    found = estimate([node("n1", 8)], [lease(9, "n1")], [job(1, 8), job(2, 8)])
    assert found == {
        1: Estimate(p50=end, p90=end),
        2: Estimate(p50=end + MINUTE + timedelta(hours=1), p90=end + MINUTE + timedelta(hours=1)),
    }


def test_early_ends_of_other_jobs_bring_the_estimates_forward_and_apart() -> None:
    found = estimate([node("n1", 8)], [lease(9, "n1")], [job(1, 8)], shares=tuple(n / 100 for n in range(1, 101)))[1]
    assert found is not None
    assert NOW + timedelta(minutes=50) < found.p50 < NOW + timedelta(minutes=70)
    assert NOW + timedelta(minutes=100) < found.p90 <= NOW + timedelta(minutes=112)


def test_a_job_that_has_run_for_long_is_compared_with_those_that_did_so_too() -> None:
    running = lease(9, "n1", started_at=NOW - timedelta(hours=1), expires_at=NOW + timedelta(hours=1))
    found = estimate([node("n1", 8)], [running], [job(1, 8)], shares=(0.1,) * 90 + (0.9,) * 10)[1]
    assert found is not None
    assert abs(found.p50 - (NOW + 0.8 * timedelta(hours=1))) < timedelta(seconds=1)


def test_what_no_end_of_a_job_can_give_has_no_estimate() -> None:
    assert estimate([node("n1", foreign=4)], [], [job(1, 8)]) == {1: None}
    assert estimate([node("n1", 8, schedulable=False)], [lease(9, "n1")], [job(1, 8)]) == {1: None}
    assert estimate([node("n1", 8)], [lease(9, "n1")], [job(1, 8, ready=False)]) == {1: None}


def test_an_overdue_or_leaving_job_is_about_to_give_its_gpus_back() -> None:
    for running in (
        lease(9, "n1", expires_at=NOW - MINUTE, started_at=NOW - 121 * MINUTE),
        lease(9, "n1", cancelling=True),
    ):
        assert estimate([node("n1", 8)], [running], [job(1, 8)]) == {1: Estimate(p50=NOW, p90=NOW)}


@given(nodes(), queues(), st.lists(st.floats(0.01, 1.5), max_size=40), st.floats(0.2, 5))
def test_p50_is_never_after_p90_and_neither_is_past(
    fleet: list[Node], queue: list[WaitingJob], shares: list[float], factor: float
) -> None:
    leases = [lease(100 + number, one.name, len(one.leased)) for number, one in enumerate(fleet) if one.leased]
    corrections = {"h100": Correction(factor=factor)}
    for one in estimate(fleet, leases, queue, shares=tuple(shares), corrections=corrections).values():
        assert one is None or NOW <= one.p50 <= one.p90


@given(nodes(), queues(), st.lists(st.floats(0.01, 1.5), max_size=40), st.sampled_from([None, 8]))
def test_each_size_is_estimated_as_if_the_job_were_queued_with_it(
    fleet: list[Node], queue: list[WaitingJob], shares: list[float], most: int | None
) -> None:
    policy = SchedulingPolicy(most_gpus_per_user=most)
    leases = [lease(100 + number, one.name, len(one.leased)) for number, one in enumerate(fleet) if one.leased]
    facts = Facts(nodes=fleet, leases=leases, runs=Runs.of(shares, ()))
    last = job(999, 8)
    ahead = [one for one in queue if one.gpu_type == last.gpu_type and one.order < last.order]
    choices = [structs.replace(last, gpu_count=count) for count in (8, 4, 2, 1)]
    each = estimate_each(facts, ahead, choices, now=NOW, policy=policy)
    for choice, found in zip(choices, each, strict=True):
        assert found == estimate_starts(facts, [*ahead, choice], now=NOW, policy=policy)[last.job_id]


def test_the_correction_settles_where_nine_of_ten_start_in_time() -> None:
    correction = Correction()
    for _ in range(40):
        correction = correction.learn(in_time=False)
    assert correction.factor > 2
    settled = Correction()
    for number in range(1000):
        settled = settled.learn(in_time=number % 10 != 0)
    assert 0.9 < settled.factor < 1.1


def test_reasons_tell_the_head_what_it_waits_for_and_the_others_that_they_are_behind() -> None:
    found = reasons([node("n1", 4), node("n2", 4)], [job(1, 8), job(2, 8), job(3, 4, ready=False)], [], POLICY)
    assert "spread over nodes" in found[UUID(int=1)]
    assert found[UUID(int=2)] == BEHIND
    assert UUID(int=3) not in found
    assert "No node has 8 h100 GPUs" in reasons([node("n1", gpus=4)], [job(1, 8)], [], POLICY)[UUID(int=1)]
    assert "ready and schedulable" in reasons([node("n1", ready=False)], [job(1, 8)], [], POLICY)[UUID(int=1)]
    assert "no h100 nodes" in reasons([], [job(1, 8)], [], POLICY)[UUID(int=1)]
