"""Rules of placement, of the line and of availability, over any fleet."""

from datetime import UTC, datetime, timedelta
from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from services.capacity.domain.availability import LineCount, Snapshot, count_availability, count_cluster
from services.capacity.domain.estimates import Hold, estimate_starts
from services.capacity.domain.fleet import Node
from services.capacity.domain.line import QUIET, Notice, Told, due, notices
from services.capacity.domain.place import PlaceState
from services.capacity.domain.placement import Waiting, place, possible
from shared.contracts.jobs import JobStatus

NOW = datetime(2026, 1, 20, 18, 30, tzinfo=UTC)
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
def lines(draw: st.DrawFn) -> list[Waiting]:
    count = draw(st.integers(0, 8))
    line = [
        Waiting(
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
    return draw(st.permutations(line))


def job(number: int, gpu_count: int, **changes: object) -> Waiting:
    waiting = Waiting(
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


@given(nodes(), lines())
def test_no_gpu_is_given_twice_and_no_node_more_than_it_has(fleet: list[Node], line: list[Waiting]) -> None:
    known = {one.name: one for one in fleet}
    given_away = {one.name: list(one.leased) for one in fleet}
    for placement in place(fleet, line):
        target = known[placement.node]
        assert target.usable
        given_away[placement.node] += placement.gpu_indexes
        assert all(0 <= index < target.gpus for index in placement.gpu_indexes)
        assert len(given_away[placement.node]) + target.foreign <= target.gpus
    assert all(len(indexes) == len(set(indexes)) for indexes in given_away.values())


@given(nodes(), lines())
def test_jobs_get_what_they_asked_for_once_and_only_when_ready(fleet: list[Node], line: list[Waiting]) -> None:
    jobs = {waiting.job_id: waiting for waiting in line}
    known = {one.name: one for one in fleet}
    placements = place(fleet, line)
    assert len({placement.job_id for placement in placements}) == len(placements)
    for placement in placements:
        waiting, target = jobs[placement.job_id], known[placement.node]
        assert waiting.ready
        assert len(placement.gpu_indexes) == waiting.gpu_count
        assert waiting.gpu_type == target.gpu_type
        assert waiting.zone in {None, target.zone} or target.zone is None


@given(nodes(), lines())
def test_nobody_overtakes_a_ready_job_of_the_same_type_that_could_start_somewhere(
    fleet: list[Node], line: list[Waiting]
) -> None:
    placed = {placement.job_id for placement in place(fleet, line)}
    for gpu_type in ("h100", "a100"):
        types = [one for one in fleet if one.gpu_type == gpu_type]
        queue = sorted(
            (w for w in line if w.gpu_type == gpu_type and w.ready and possible(types, w)), key=lambda w: w.order
        )
        served = [waiting.job_id in placed for waiting in queue]
        assert served == sorted(served, reverse=True)


@given(nodes(), lines())
def test_after_a_round_the_first_ready_job_fits_nowhere(fleet: list[Node], line: list[Waiting]) -> None:
    placements = place(fleet, line)
    taken = {p.job_id for p in placements}
    after = [
        structs.replace(
            one, leased=(*one.leased, *(i for p in placements if p.node == one.name for i in p.gpu_indexes))
        )
        for one in fleet
    ]
    assert place(after, [waiting for waiting in line if waiting.job_id not in taken]) == []


def test_the_fullest_node_that_fits_is_filled_and_whole_nodes_stay_free() -> None:
    placements = place([node("empty"), node("fuller", 6), node("full", 7)], [job(1, 2), job(2, 8)])
    assert [(p.node, p.gpu_indexes) for p in placements] == [("fuller", (6, 7)), ("empty", tuple(range(8)))]


def test_a_job_too_large_for_what_is_left_of_its_nodes_does_not_close_the_line() -> None:
    broken = node("broken", gpus=7)
    assert [p.job_id.int for p in place([broken], [job(1, 8), job(2, 4)])] == [2]


def test_a_job_that_fits_only_a_cordoned_node_closes_the_line() -> None:
    fleet = [node("cordoned", schedulable=False), node("small", gpus=4)]
    assert place(fleet, [job(1, 8), job(2, 4)]) == []


def test_a_job_starts_where_its_disk_is() -> None:
    fleet = [node("a", 4, zone="a"), node("b", zone="b")]
    assert [p.node for p in place(fleet, [job(1, 2, zone="b"), job(2, 2)])] == ["b", "a"]


COUNTS = st.lists(
    st.builds(
        LineCount,
        gpu_type=st.sampled_from(["h100", "a100", "b200", "unheard-of"]),
        state=st.sampled_from(PlaceState),
        ready=st.booleans(),
        cancelling=st.booleans(),
        status=st.sampled_from(JobStatus),
        jobs=st.integers(1, 5),
        gpus=st.integers(1, 40),
    ),
    max_size=6,
)


@given(nodes(), COUNTS)
def test_total_is_available_plus_in_use_and_nothing_is_negative(fleet: list[Node], counts: list[LineCount]) -> None:
    snapshot = Snapshot(nodes=tuple(fleet), counts=tuple(counts), as_of=NOW)
    for entry in count_availability(snapshot):
        assert entry.total == entry.available + entry.in_use
        assert min(entry.total, entry.available, entry.in_use, entry.queued, entry.max_placeable) >= 0
        assert entry.max_placeable <= min(entry.available, entry.max_per_node)
        usable = [one for one in entry.nodes if one.ready and one.schedulable]
        assert entry.total == sum(one.gpus for one in usable)


@given(nodes(), COUNTS)
def test_cluster_status_never_disagrees_with_availability(fleet: list[Node], counts: list[LineCount]) -> None:
    snapshot = Snapshot(nodes=tuple(fleet), counts=tuple(counts), as_of=NOW)
    status = count_cluster(snapshot)
    assert status.types == count_availability(snapshot)
    assert (status.jobs[JobStatus.QUEUED] > 0) == any(entry.queued for entry in status.types)
    assert sum(status.jobs.values()) <= sum(count.jobs for count in counts)


@given(nodes(), lines())
def test_what_availability_calls_placeable_is_what_the_placer_takes(fleet: list[Node], line: list[Waiting]) -> None:
    del line
    for entry in count_availability(Snapshot(nodes=tuple(fleet), counts=(), as_of=None)):
        largest = entry.max_placeable
        anywhere = {"gpu_type": entry.gpu_type}
        assert not place(fleet, [job(1, largest + 1, **anywhere)])
        assert not largest or place(fleet, [job(1, largest, **anywhere)])


def test_estimates_are_the_ends_of_leases_and_of_those_ahead() -> None:
    ends = NOW + timedelta(hours=2)
    starts = estimate_starts([node("n1", 8)], [Hold(node="n1", gpu_count=8, ends_at=ends)], [job(1, 8), job(2, 8)], NOW)
    assert starts == {UUID(int=1): ends, UUID(int=2): ends + timedelta(hours=1)}


def test_an_unknown_or_overdue_end_makes_no_estimate() -> None:
    for ends_at in (None, NOW - timedelta(seconds=1)):
        holds = [Hold(node="n1", gpu_count=8, ends_at=ends_at)]
        assert estimate_starts([node("n1", 8)], holds, [job(1, 8)], NOW) == {UUID(int=1): None}


@given(nodes(), lines())
def test_positions_count_the_line_of_each_type_without_gaps(fleet: list[Node], line: list[Waiting]) -> None:
    ready = [structs.replace(waiting, ready=True) for waiting in line]
    found = notices(fleet, ready, {})
    for gpu_type in ("h100", "a100"):
        queue = sorted((w for w in ready if w.gpu_type == gpu_type), key=lambda w: w.order)
        assert [found[w.job_id].position for w in queue] == list(range(1, len(queue) + 1))


def test_a_notice_is_told_when_it_changed_and_at_most_once_a_second() -> None:
    first = Notice(position=2, estimated_start_at=None, reason="r")
    changed = structs.replace(first, position=1)
    told = Told(notice=first, at=NOW)
    assert due(NOW, Told(), first)
    assert not due(NOW + QUIET, told, first)
    assert not due(NOW + QUIET / 2, told, changed)
    assert due(NOW + QUIET, told, changed)
