"""In which zone a job that is about to be submitted starts soonest."""

from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest

from services.capacity.domain.estimates import Facts
from services.capacity.domain.fleet import Node
from services.capacity.domain.lease import Lease, Runs
from services.capacity.domain.placement import SchedulingPolicy, WaitingJob
from services.capacity.domain.zones import soonest_zone
from shared.contracts.jobs import JobStatus

NOW = datetime(2026, 1, 20, 18, 30, tzinfo=UTC)
ZONES = ("a", "b", "c")


def node(name: str, zone: str | None, leased: int = 0, **changes: object) -> Node:
    fields = {"gpu_type": "h100", "gpus": 8, "ready": True, "schedulable": True} | changes
    return Node(name=name, zone=zone, leased=tuple(range(leased)), **fields)  # type: ignore[arg-type]


def lease(node_name: str, hours: float, gpus: int = 8) -> Lease:
    return Lease(
        job_id=UUID(int=hash(node_name) % 2**64),
        node=node_name,
        gpu_count=gpus,
        user_id=9,
        duration=timedelta(hours=hours),
        granted_at=NOW,
        started_at=NOW,
        expires_at=NOW + timedelta(hours=hours),
        cancelling=False,
        status=JobStatus.ACTIVE,
    )


def job(number: int, gpu_count: int = 8, zone: str | None = None) -> WaitingJob:
    return WaitingJob(
        job_id=UUID(int=number),
        gpu_type="h100",
        gpu_count=gpu_count,
        submitted_at=NOW + timedelta(seconds=number),
        duration=timedelta(hours=1),
        ready=True,
        zone=zone,
    )


def choose(
    nodes: list[Node], leases: list[Lease], queue: list[WaitingJob], gpu_count: int = 8, zones: tuple[str, ...] = ZONES
) -> str | None:
    facts = Facts(nodes=nodes, leases=leases, runs=Runs.of((), ()))
    return soonest_zone(zones, job(99, gpu_count), queue, facts=facts, now=NOW, policy=SchedulingPolicy())


def test_a_zone_where_it_starts_at_once_is_chosen() -> None:
    assert choose([node("n1", "a", 8), node("n2", "b")], [lease("n1", 1)], []) == "b"


def test_else_the_zone_where_gpus_come_free_first() -> None:
    nodes = [node("n1", "a", 8), node("n2", "b", 8), node("n3", "c", 8)]
    assert choose(nodes, [lease("n1", 9), lease("n2", 2), lease("n3", 5)], []) == "b"


def test_those_ahead_count() -> None:
    """The zone that comes free first is another job's then."""
    nodes = [node("n1", "a", 8), node("n2", "b", 8)]
    leases = [lease("n1", 1.5), lease("n2", 1)]
    assert choose(nodes, leases, []) == "b"
    assert choose(nodes, leases, [job(1, zone="b")]) == "a"


def test_of_zones_where_it_starts_at_once_the_emptiest_is_chosen() -> None:
    assert choose([node("n1", "a", 4), node("n2", "b"), node("n3", "c", 2)], [], [], gpu_count=1) == "b"


def test_of_equal_zones_the_first_that_is_named_is_chosen() -> None:
    nodes = [node("n1", "a"), node("n2", "b")]
    assert choose(nodes, [], [], zones=("b", "a")) == "b"
    assert choose(nodes, [], [], zones=("a", "b")) == "a"


@pytest.mark.parametrize("broken", [{"ready": False}, {"schedulable": False}, {"foreign": 8}])
def test_a_zone_whose_gpus_nobody_can_say_when_they_come_free_is_the_last(broken: dict[str, object]) -> None:
    assert choose([node("n1", "a", **broken), node("n2", "b", 8)], [lease("n2", 70)], []) == "b"


def test_a_zone_without_a_node_that_is_large_enough_is_not_chosen() -> None:
    nodes = [node("n1", "a", gpus=4), node("n2", "b", 8)]
    assert choose(nodes, [lease("n2", 70)], []) == "b"
    assert choose(nodes, [lease("n2", 70)], [], zones=("a", "c")) is None


def test_a_node_whose_zone_is_unknown_counts_for_every_zone() -> None:
    assert choose([node("n1", None)], [], [], zones=("b", "a")) == "b"


def test_other_types_and_zones_that_are_not_offered_do_not_count() -> None:
    nodes = [node("n1", "a", gpu_type="a100"), node("n2", "b", 8), node("n3", "c")]
    assert choose(nodes, [lease("n2", 2)], [], zones=("a", "b")) == "b"
