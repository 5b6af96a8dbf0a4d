"""The reconciler's decision: a job and its pod, to the one next step."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from services.jobs.domain.facts import (
    CommandEnded,
    Expire,
    PodFailed,
    PodReady,
    PodRefused,
    PodRestarted,
    PodWaits,
    Warn,
)
from services.jobs.domain.job import Job, KeptLog
from services.jobs.domain.next_step import (
    AskNode,
    Clear,
    Delete,
    Keep,
    Limits,
    Make,
    Record,
    Rest,
    Step,
    due_warning,
    next_step,
)
from services.jobs.domain.pod import Pod
from services.jobs.domain.pod_facts import read_pod
from shared.contracts.jobs import JobStatus
from tests.support.jobs import NOW
from tests.support.pods import (
    READY_POD,
    RUNNING,
    UNSCHEDULABLE,
    active,
    container,
    ended,
    pod,
    preparing,
    ready,
    waiting,
)

LIMITS = Limits()


def step(job: Job, seen: Pod | None, after: timedelta = timedelta(0), **log: Any) -> Step:
    return next_step(job, read_pod(seen) if seen else None, NOW + after, LIMITS, KeptLog(**log))


def restarted(reason: str, code: int, count: int = 1) -> Pod:
    before = {"terminated": {"exitCode": code, "reason": reason}}
    [status] = container(**RUNNING)
    return pod(
        restart="Always", conditions=ready(), containerStatuses=[{**status, "lastState": before, "restartCount": count}]
    )


@pytest.mark.parametrize(
    ("seen", "reason"),
    [
        (restarted("OOMKilled", 137), "The job ran out of memory and was killed: its container was restarted"),
        (restarted("Error", 1), "The container ended with exit code 1 and was restarted"),
    ],
)
def test_a_container_that_was_started_again_says_so_on_its_job(seen: Pod, reason: str) -> None:
    assert step(active(), seen) == Record(PodRestarted(1, 1, reason))
    assert isinstance(step(active(restarts=1), seen), Rest)


STARTED_AT = datetime(2026, 1, 20, 18, 0, tzinfo=UTC)


def starting(conditions: list[dict[str, str]]) -> Pod:
    return pod(conditions=conditions, containerStatuses=container(**RUNNING), hostIP="10.0.0.1")


def test_the_time_box_counts_from_sshds_first_answer_or_a_minute_after_the_container() -> None:
    job = preparing(granted_at=STARTED_AT - timedelta(minutes=1))
    answers = [{"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-20T18:00:20Z"}]
    silent = [{"type": "Ready", "status": "False", "lastTransitionTime": "2026-01-20T18:00:00Z"}]

    def at(seconds: float, conditions: list[dict[str, str]]) -> Step:
        return next_step(job, read_pod(starting(conditions)), STARTED_AT + timedelta(seconds=seconds), LIMITS)

    assert at(20, answers) == Record(PodReady(1, "10.0.0.1"))
    assert at(3600, answers) == Record(PodReady(1, "10.0.0.1", STARTED_AT + timedelta(seconds=20)))
    assert at(59, silent) != Record(PodReady(1, "10.0.0.1"))
    assert at(60, silent) == Record(PodReady(1, "10.0.0.1"))
    assert at(3600, silent) == Record(PodReady(1, "10.0.0.1", STARTED_AT + timedelta(seconds=60)))


def test_a_wrong_clock_of_the_node_makes_no_start_before_the_lease() -> None:
    job = preparing(granted_at=NOW - timedelta(minutes=1))
    answers = [{"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-20T17:00:00Z"}]
    assert step(job, starting(answers)) == Record(PodReady(1, "10.0.0.1", NOW - timedelta(minutes=1)))


def test_what_is_not_there_is_made_and_what_vanished_is_given_back() -> None:
    assert step(preparing(pod_uid=None), None) == Make()
    assert step(preparing(pod_uid=None), READY_POD) == Make()
    assert isinstance(step(preparing(pod_uid=None), pod(deleting=True)), Rest)
    for gone in (None, pod(deleting=True)):
        vanished = step(preparing(), gone)
        assert isinstance(vanished, Record)
        assert isinstance(vanished.fact, PodRefused)


def test_a_command_that_ended_before_it_was_seen_ready_has_started() -> None:
    for seen in (READY_POD, ended(0, "Completed", "Succeeded"), ended(3, "Error"), ended(137, "OOMKilled")):
        assert step(preparing(), seen) == Record(PodReady(1, seen.status.host_ip))
    never = step(preparing(), ended(128, "StartError"))
    assert isinstance(never, Record)
    assert isinstance(never.fact, PodFailed)


def test_trouble_decides_only_when_its_time_is_over() -> None:
    first = step(preparing(), waiting("ErrImagePull"))
    assert isinstance(first, Record)
    assert isinstance(first.fact, PodWaits)
    troubled = preparing(detail=first.fact.detail, fault="image", fault_since=NOW)
    assert isinstance(step(troubled, waiting("ErrImagePull"), timedelta(seconds=59)), Rest)
    failed = step(troubled, waiting("ErrImagePull"), timedelta(seconds=60))
    assert isinstance(failed, Record)
    assert isinstance(failed.fact, PodFailed)
    detail = read_pod(pod("Pending", conditions=UNSCHEDULABLE)).detail
    no_room = preparing(detail=detail, fault="unschedulable", fault_since=NOW)
    refused = step(no_room, pod("Pending", conditions=UNSCHEDULABLE), timedelta(seconds=10))
    assert isinstance(refused, Record)
    assert isinstance(refused.fact, PodRefused)


def test_an_active_job_ends_by_its_command_by_the_cluster_or_by_the_clock() -> None:
    late = timedelta(hours=2)
    assert step(active(), ended(0, "Completed", "Succeeded"), late) == Record(CommandEnded(1, 0))
    assert step(active(), READY_POD, late) == Record(Expire(1))
    for seen in (pod("Failed", reason="Evicted"), ended(137, "OOMKilled")):
        over = step(active(), seen)
        assert isinstance(over, Record)
        assert isinstance(over.fact, PodFailed)
    for seen in (None, pod(deleting=True)):
        assert step(active(), seen, late) == AskNode()
    assert step(active(pod_uid="another"), READY_POD, late) == AskNode()
    assert isinstance(step(active(), READY_POD), Rest)


def test_a_job_expires_at_its_end_and_not_before() -> None:
    job = active(expires_at=NOW + timedelta(hours=1), warned_minutes=5)
    assert step(job, READY_POD, timedelta(hours=1)) == Record(Expire(1))
    assert step(job, READY_POD, timedelta(hours=1, microseconds=-1)) == Rest(NOW + timedelta(hours=1))


def test_a_pod_is_deleted_once_and_only_its_absence_is_the_end() -> None:
    ending = active(outcome=JobStatus.CANCELLED)
    assert step(ending, READY_POD, kept=True) == Delete("u")
    assert isinstance(step(ending, pod(deleting=True)), Rest)
    assert step(ending, None) == Clear()


def test_a_log_is_kept_before_the_pod_is_deleted() -> None:
    ending = active(outcome=JobStatus.CANCELLED)
    done = ended(0, "Completed", phase="Succeeded")
    assert step(ending, READY_POD) == Keep(final=False)
    assert step(ending, READY_POD, kept=True) == Delete("u")
    assert step(ending, done) == Keep(final=True)
    assert step(ending, done, kept=True) == Keep(final=True)
    assert step(ending, done, kept=True, final=True) == Delete("u", "why")
    assert isinstance(step(ending, pod(deleting=True)), Rest)


def test_a_log_that_cannot_be_had_holds_up_no_end() -> None:
    ending = active(outcome=JobStatus.CANCELLED)
    for tries in range(LIMITS.log_tries):
        assert step(ending, READY_POD, tries=tries) == Keep(final=False)
    assert step(ending, READY_POD, tries=LIMITS.log_tries) == Delete("u")
    never_began = pod("Pending", containerStatuses=container(waiting={"reason": "ContainerCreating"}))
    assert step(preparing(outcome=JobStatus.CANCELLED), never_began) == Delete("u")
    assert step(preparing(requeue_reason="revoked"), READY_POD) == Delete("u")


@pytest.mark.parametrize(
    ("hours", "minutes_in", "told", "due"),
    [
        (1, 0, None, None),
        (1, 29.9, None, None),
        (1, 30, None, 30),
        (1, 31, 30, None),
        (1, 45, 30, 15),
        (1, 56, None, 5),
        (1, 56, 5, None),
        (0.5, 0, None, None),
        (0.5, 15, None, 15),
        (5 / 60, 0, None, None),
        (2, 115, 15, 5),
    ],
)
def test_warnings_come_at_their_moments_once(
    hours: float, minutes_in: float, told: int | None, due: int | None
) -> None:
    job = active(expires_at=NOW + timedelta(hours=hours), warned_minutes=told)
    now = NOW + timedelta(minutes=minutes_in)
    assert due_warning(job, now) == due
    if due is not None:
        assert next_step(job, read_pod(READY_POD), now, LIMITS) == Record(Warn(1, due))


def test_an_active_job_is_looked_at_no_later_than_its_next_moment() -> None:
    job = active(expires_at=NOW + timedelta(minutes=30, seconds=2))
    rest = step(job, READY_POD)
    assert rest == Rest(NOW + timedelta(seconds=2))
