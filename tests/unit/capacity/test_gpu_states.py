"""What each GPU of a node is to somebody."""

from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.capacity.domain.fleet import Node
from services.capacity.domain.gpu_states import GpuState, Holder, gpus_of

MINE, THEIRS = 1, 2
JOB, OTHER = UUID(int=1), UUID(int=2)


def node(**fields: object) -> Node:
    return Node(**{"name": "n", "gpu_type": "h100", "gpus": 8, "ready": True, "schedulable": True, **fields})  # type: ignore[arg-type]


def held(index: int, user_id: int) -> Holder:
    return Holder(node="n", gpu_index=index, job_id=JOB if user_id == MINE else OTHER, user_id=user_id)


@pytest.mark.parametrize(("sees_all", "theirs"), [(False, None), (True, OTHER)])
def test_whose_a_job_is_operators_alone_see(sees_all: bool, theirs: UUID | None) -> None:
    shown = gpus_of(node(leased=(0, 1)), [held(0, MINE), held(1, THEIRS)], asker=MINE, sees_all=sees_all)
    assert [gpu.state for gpu in shown] == [GpuState.OWN, GpuState.OTHERS, *[GpuState.FREE] * 6]
    assert [gpu.job_id for gpu in shown[:3]] == [JOB, theirs, None]


def test_foreign_pods_and_what_they_withhold_take_the_last_that_are_not_leased() -> None:
    shown = gpus_of(node(leased=(7,), foreign=2, gpus_by_free_cpu=3.5), [held(7, THEIRS)], asker=MINE, sees_all=False)
    states = [gpu.state.value for gpu in shown]
    assert states == ["free", "free", "withheld", "withheld", "withheld", "foreign", "foreign", "others"]


def test_what_small_pods_leave_is_enough_for_as_many_gpus_as_its_sum_says() -> None:
    taken = 0.0
    for _ in range(60):  # as the database adds them up, without a correction
        taken += 0.2 / 12
    assert 8 - taken < 7
    shown = node(gpus_by_free_cpu=8 - taken)
    assert (shown.withheld, shown.placeable) == (1, 7)


def test_a_device_that_failed_under_a_lease_is_still_shown() -> None:
    shown = gpus_of(node(gpus=4, leased=(5,)), [held(5, MINE)], asker=MINE, sees_all=False)
    assert [gpu.state for gpu in shown][5] is GpuState.OWN
    assert len(shown) == 6


@given(st.sets(st.integers(0, 7)), st.integers(0, 8), st.floats(0, 8))
def test_the_squares_add_up_to_what_the_node_counts(leased: set[int], foreign: int, by_cpu: float) -> None:
    looked_at = node(leased=tuple(sorted(leased)), foreign=foreign, gpus_by_free_cpu=by_cpu)
    shown = gpus_of(looked_at, [held(index, THEIRS) for index in leased], asker=MINE, sees_all=False)
    assert len(shown) == 8
    assert sum(gpu.state is GpuState.FREE for gpu in shown) == looked_at.placeable
    assert sum(gpu.state is GpuState.OTHERS for gpu in shown) == len(leased)
