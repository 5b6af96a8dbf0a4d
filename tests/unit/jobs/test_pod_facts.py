"""From what a pod says to what is taken from it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.jobs.domain.pod import Pod
from services.jobs.domain.pod_facts import Fault, PodState, is_passing, read_pod
from tests.support.pods import READY_POD, RUNNING, UNSCHEDULABLE, container, ended, pod, ready, waiting


@pytest.mark.parametrize(
    ("seen", "state", "words"),
    [
        (pod("Pending"), PodState.STARTING, "waiting for its node"),
        (READY_POD, PodState.READY, "running"),
        (pod(conditions=ready("False"), containerStatuses=container(**RUNNING)), PodState.NOT_READY, "ready"),
        (ended(0, "Completed", "Succeeded"), PodState.EXITED, ""),
        (ended(3, "Error"), PodState.EXITED, ""),
        (ended(3, "Error", "Running"), PodState.EXITED, ""),
        (ended(3, "Error", "Running", "Always"), PodState.STARTING, ""),
        (pod("Succeeded"), PodState.EXITED, ""),
        (ended(137, "OOMKilled"), PodState.FAILED, "ran out of memory"),
        (ended(128, "StartError"), PodState.FAILED, "could not be started: why"),
        (pod("Failed", reason="Evicted", message="low on memory"), PodState.FAILED, "evicted: low on memory"),
        (ended(0, "OOMKilled", "Succeeded"), PodState.FAILED, "ran out of memory: a process of it was killed"),
        (ended(137, "ContainerStatusUnknown"), PodState.FAILED, "node lost the container"),
        (pod("Failed", reason="DeadlineExceeded"), PodState.FAILED, "deadline"),
        (pod("Failed", reason="OutOfnvidia.com/gpu", message="no GPU"), PodState.REFUSED, "no GPU"),
        (pod("Failed", reason="UnexpectedAdmissionError"), PodState.REFUSED, "refused"),
        (pod("Failed"), PodState.FAILED, "failed"),
        (pod("Running", reason="NodeLost", containerStatuses=container(**RUNNING)), PodState.NOT_READY, "lost"),
    ],
)
def test_a_pods_status_in_words(seen: Pod, state: PodState, words: str) -> None:
    facts = read_pod(seen)
    assert facts.state is state
    assert words in facts.detail


@pytest.mark.parametrize(
    ("seen", "passing"),
    [
        (pod("Pending"), True),
        (pod(conditions=ready("False"), containerStatuses=container(**RUNNING)), True),
        (READY_POD, False),
        (ended(0, "Completed", "Succeeded"), False),
        (ended(137, "OOMKilled"), False),
        (pod("Failed", reason="OutOfnvidia.com/gpu"), False),
        (pod("Pending", conditions=UNSCHEDULABLE), False),
        (waiting("ErrImagePull"), False),
        (pod("Pending", deleting=True), False),
    ],
)
def test_only_of_a_pod_that_is_on_its_way_what_comes_next_is_worth_more(seen: Pod, passing: bool) -> None:
    assert is_passing(read_pod(seen)) is passing


HOSTILE = "\x1b[2J\x00\x07one\r\n\ttwo\u2028\u202ethree\x7f\x9b" + "9" * 5000
"""Words of a cluster's or a pod's that would move a terminal's cursor, or fill its screen."""


@pytest.mark.parametrize(
    "seen",
    [
        pod("Failed", message=HOSTILE),
        pod("Failed", reason=HOSTILE),
        pod("Failed", reason="Evicted", message=HOSTILE),
        pod("Failed", reason=f"OutOf{HOSTILE}"),
        pod(
            "Failed",
            containerStatuses=container(terminated={"exitCode": 128, "reason": "StartError", "message": HOSTILE}),
        ),
        pod(
            "Pending", containerStatuses=container(waiting={"reason": "CreateContainerConfigError", "message": HOSTILE})
        ),
        pod("Pending", conditions=[{**UNSCHEDULABLE[0], "message": HOSTILE}]),
    ],
)
def test_what_the_cluster_says_is_one_printable_line_of_bounded_length(seen: Pod) -> None:
    detail = read_pod(seen).detail
    assert detail.isprintable()
    assert "one two three" in detail
    assert len(detail) <= 1400


@pytest.mark.parametrize(
    ("seen", "fault"),
    [
        (waiting("ErrImagePull"), Fault.IMAGE),
        (waiting("ImagePullBackOff"), Fault.IMAGE),
        (waiting("InvalidImageName"), Fault.FINAL),
        (waiting("CreateContainerConfigError"), Fault.CONFIG),
        (waiting("CrashLoopBackOff"), Fault.CRASH),
        (waiting("ContainerCreating"), None),
        (pod("Pending", conditions=UNSCHEDULABLE), Fault.UNSCHEDULABLE),
    ],
)
def test_trouble_in_starting_is_told_from_patience(seen: Pod, fault: Fault | None) -> None:
    facts = read_pod(seen)
    assert (facts.state, facts.fault) == (PodState.STARTING, fault)


@pytest.mark.parametrize(
    "seen",
    [
        ended(0, "OOMKilled", "Succeeded"),
        pod("Failed", reason="Evicted", containerStatuses=container(terminated={"exitCode": 0})),
        ended(0, "ContainerCannotRun"),
    ],
)
def test_what_the_cluster_ended_has_no_exit_code_of_success(seen: Pod) -> None:
    assert read_pod(seen).exit_code is None


def test_a_container_that_does_not_stay_up_says_why() -> None:
    [status] = container(waiting={"reason": "CrashLoopBackOff", "message": "back-off 10s"})
    before = {"terminated": {"exitCode": 128, "reason": "StartError", "message": "exec: not found"}}
    seen = pod("Pending", restart="Always", containerStatuses=[{**status, "lastState": before}])
    assert read_pod(seen).detail == "The container does not stay up (exit code 128): exec: not found"


WORDS = st.sampled_from(["", "Pending", "Running", "Failed", "Succeeded", "Unknown", "OOMKilled", "Evicted", "True"])


@given(WORDS, WORDS, WORDS, st.integers(-1, 255), st.booleans())
def test_no_status_is_beyond_reading(phase: str, reason: str, why: str, code: int, ended: bool) -> None:
    state = {"terminated": {"exitCode": code, "reason": why}} if ended else {"waiting": {"reason": why}}
    read_pod(pod(phase, reason=reason, containerStatuses=container(**state)))
