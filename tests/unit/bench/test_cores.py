"""The benchmark tells who held the cores while requests waited."""

import subprocess
import sys

import pytest

from tests.bench.cores import Hold, holds_of, longest, merged, shares, waited

_LINES = """\
[000] 10.000000000: sched:sched_switch: prev_comm=swapper/0 prev_pid=0 prev_prio=120 prev_state=R ==> next_comm=a b next_pid=7 next_prio=120
[001] 10.001000000: sched:sched_switch: prev_comm=c prev_pid=8 prev_prio=120 prev_state=S ==> next_comm=swapper/1 next_pid=0 next_prio=120
[000] 10.004000000: sched:sched_switch: prev_comm=a b prev_pid=7 prev_prio=120 prev_state=S ==> next_comm=c next_pid=8 next_prio=120
[001] 10.005000000: sched:sched_switch: prev_comm=swapper/1 prev_pid=0 prev_prio=120 prev_state=R ==> next_comm=c next_pid=8 next_prio=120
[000] 10.006000000: sched:sched_switch: prev_comm=c prev_pid=8 prev_prio=120 prev_state=D ==> next_comm=d next_pid=9 next_prio=120
"""  # noqa: E501 - as perf shows them


def _name(hold: Hold) -> str:
    return {7: "jobs", 8: "postgres"}[hold.thread]


def test_a_thread_holds_a_core_from_one_switch_to_the_next() -> None:
    assert holds_of(_LINES.splitlines()) == {
        0: [Hold(10.0, 10.004, 7, "a b"), Hold(10.004, 10.006, 8, "c")],
        1: [Hold(10.001, 10.005, 0, "swapper/1")],
    }


def test_shares_are_of_the_time_in_which_requests_waited() -> None:
    found = shares(holds_of(_LINES.splitlines()), [(10.003, 10.005)], _name)

    assert found == {"nobody": pytest.approx(1), "jobs": pytest.approx(0.5), "postgres": pytest.approx(0.5)}


def test_the_longest_holds_are_what_of_them_requests_waited_for() -> None:
    found = longest(holds_of(_LINES.splitlines()), [(10.001, 10.0045), (10.0055, 10.006)], _name)

    assert [(who, round(seconds, 6)) for who, seconds in found] == [
        ("jobs", 0.003),
        ("postgres", 0.0005),
        ("postgres", 0.0005),
    ]


def test_time_in_which_two_requests_waited_counts_once() -> None:
    assert merged([(5.0, 6.0), (1.0, 2.0), (1.5, 3.0), (1.6, 1.7)]) == [(1.0, 3.0), (5.0, 6.0)]


def test_what_a_process_has_run_is_counted() -> None:
    spin = "import time\nwhile time.process_time() < 0.3: pass\nprint(flush=True)\ninput()"
    with subprocess.Popen([sys.executable, "-c", spin], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()

        assert waited([process.pid])[0] >= 0.25

        process.communicate(b"\n")
