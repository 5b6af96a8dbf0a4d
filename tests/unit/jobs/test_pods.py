"""From what a pod says to what its job does."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.jobs.domain import plan
from services.jobs.domain.disk_manifests import volume_claim_manifest, volume_manifest
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
from services.jobs.domain.manifests import (
    label_value,
    labels,
    object_name,
    pod_manifest,
    secret_manifest,
    service_manifest,
)
from services.jobs.domain.plan import (
    AskNode,
    Clear,
    Delete,
    Keep,
    Limits,
    Make,
    Record,
    Rest,
    due_warning,
    next_step,
)
from services.jobs.domain.pod import SSHD_PATIENCE, Pod
from services.jobs.domain.pod_facts import Fault, PodState, read_pod
from services.jobs.domain.pod_policy import PodPolicy
from shared.contracts.jobs import JobStatus
from tests.support.jobs import NOW, a_job

GOLDEN = Path(__file__).parents[2] / "data" / "jobs"
LIMITS = Limits()


def pod(phase: str = "Running", *, restart: str = "Never", deleting: bool = False, **status: Any) -> Pod:
    metadata = {"name": "p", "uid": "u", **({"deletionTimestamp": "2026-01-20T18:00:00Z"} if deleting else {})}
    raw = {"metadata": metadata, "spec": {"restartPolicy": restart}, "status": {"phase": phase, **status}}
    return msgspec.json.decode(json.dumps(raw).encode(), type=Pod)


def container(**state: Any) -> list[dict[str, Any]]:
    return [{"name": "main", "state": state}]


def ready(value: str = "True") -> list[dict[str, str]]:
    return [{"type": "PodScheduled", "status": "True"}, {"type": "Ready", "status": value}]


RUNNING = {"running": {"startedAt": "2026-01-20T18:00:00Z"}}
UNSCHEDULABLE = [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/4 nodes"}]
READY_POD = pod(conditions=ready(), containerStatuses=container(**RUNNING), hostIP="10.0.0.1")


def ended(code: int, reason: str, phase: str = "Failed", restart: str = "Never") -> Pod:
    statuses = container(terminated={"exitCode": code, "reason": reason, "message": "why"})
    return pod(phase, restart=restart, containerStatuses=statuses)


def waiting(reason: str) -> Pod:
    return pod("Pending", containerStatuses=container(waiting={"reason": reason, "message": "why"}))


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


def test_a_container_that_does_not_stay_up_says_why() -> None:
    [status] = container(waiting={"reason": "CrashLoopBackOff", "message": "back-off 10s"})
    before = {"terminated": {"exitCode": 128, "reason": "StartError", "message": "exec: not found"}}
    seen = pod("Pending", restart="Always", containerStatuses=[{**status, "lastState": before}])
    assert read_pod(seen).detail == "The container does not stay up (exit code 128): exec: not found"


STARTED_AT = datetime(2026, 1, 20, 18, 0, tzinfo=UTC)


def starting(conditions: list[dict[str, str]]) -> Pod:
    return pod(conditions=conditions, containerStatuses=container(**RUNNING), hostIP="10.0.0.1")


def test_the_time_box_counts_from_sshds_first_answer_or_a_minute_after_the_container() -> None:
    job = preparing(granted_at=STARTED_AT - timedelta(minutes=1))
    answers = [{"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-20T18:00:20Z"}]
    silent = [{"type": "Ready", "status": "False", "lastTransitionTime": "2026-01-20T18:00:00Z"}]

    def at(seconds: float, conditions: list[dict[str, str]]) -> plan.Step:
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


@given(st.integers(300, 72 * 3600), st.integers(1, 168), st.integers(1, 7200), st.floats(0, 1))
def test_the_pods_own_deadline_never_comes_before_the_jobs_end(
    duration: int, hours: int, prepare: int, late: float
) -> None:
    policy = PodPolicy(longest_seconds=hours * 3600, prepare_seconds=prepare)
    job = preparing(duration_seconds=duration)
    life = pod_manifest(job, policy)["spec"]["activeDeadlineSeconds"]
    longest = max(duration, policy.longest_seconds)
    assert late * prepare + SSHD_PATIENCE.total_seconds() + longest < life


WORDS = st.sampled_from(["", "Pending", "Running", "Failed", "Succeeded", "Unknown", "OOMKilled", "Evicted", "True"])


@given(WORDS, WORDS, WORDS, st.integers(-1, 255), st.booleans())
def test_no_status_is_beyond_reading(phase: str, reason: str, why: str, code: int, ended: bool) -> None:
    state = {"terminated": {"exitCode": code, "reason": why}} if ended else {"waiting": {"reason": why}}
    read_pod(pod(phase, reason=reason, containerStatuses=container(**state)))


def preparing(**changes: Any) -> Job:
    lease: dict[str, Any] = {"epoch": 1, "node": "n1", "granted_at": NOW, "pod_uid": "u"}
    return a_job(status=JobStatus.PREPARING, **{**lease, **changes})


def active(**changes: Any) -> Job:
    box: dict[str, Any] = {"launched_at": NOW, "expires_at": NOW + timedelta(hours=1), "detail": "running"}
    return msgspec.structs.replace(preparing(), status=JobStatus.ACTIVE, **{**box, **changes})


def step(job: Job, seen: Pod | None, after: timedelta = timedelta(0), **log: Any) -> plan.Step:
    return next_step(job, read_pod(seen) if seen else None, NOW + after, LIMITS, KeptLog(**log))


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


GOLDENS = ["pod_with_command", "pod_that_idles", "bare_pod_with_command", "bare_pod_that_idles", "service", "secret"]


@pytest.mark.parametrize("kind", [*GOLDENS, "bare_service"])
def test_manifests_are_the_golden_ones(kind: str) -> None:
    """After a wanted change: delete the file, run once, read the difference."""
    command = None if kind.endswith("idles") else "python train.py --epochs 100"
    job = preparing(gpu_count=2, command=command, env_var_names=["EXPERIMENT", "WANDB_API_KEY"])
    share = {"cpu_per_gpu": 12, "memory_gib_per_gpu": 120} if kind == "pod_with_command" else {}
    policy = PodPolicy(tools_image=None if kind.startswith("bare") else "registry.example/gpudev/tools:1", **share)
    values = {"EXPERIMENT": "training-v1", "WANDB_API_KEY": "secret"}
    made = {
        "pod": lambda: pod_manifest(job, policy),
        "service": lambda: service_manifest(job, policy, "pod-uid"),
        "secret": lambda: secret_manifest(job, values, "ssh-ed25519 AAAA\n"),
    }[kind.removeprefix("bare_").split("_")[0]]()
    path = GOLDEN / f"{kind}.json"
    if not path.exists():
        path.write_text(json.dumps(made, indent=2, sort_keys=True) + "\n")
        pytest.fail(f"{path} was made: read it, then run again")
    assert json.loads(json.dumps(made)) == json.loads(path.read_text())


@pytest.mark.parametrize("kind", ["disk_pod", "disk_volume", "disk_claim"])
def test_manifests_of_a_job_with_a_disk_are_the_golden_ones(kind: str) -> None:
    """After a wanted change: delete the file, run once, read the difference."""
    job = preparing(
        gpu_count=2, disk_name="data", ebs_volume_id="vol-0123456789abcdef0", availability_zone="us-east-2a"
    )
    name, own = object_name(job), labels(job)
    made = {
        "disk_pod": lambda: pod_manifest(job, PodPolicy()),
        "disk_volume": lambda: volume_manifest(job, name, own, "gpudev"),
        "disk_claim": lambda: volume_claim_manifest(name, own),
    }[kind]()
    path = GOLDEN / f"{kind}.json"
    if not path.exists():
        path.write_text(json.dumps(made, indent=2, sort_keys=True) + "\n")
        pytest.fail(f"{path} was made: read it, then run again")
    assert json.loads(json.dumps(made)) == json.loads(path.read_text())


@given(st.text(min_size=1, max_size=90), st.text(min_size=1, max_size=90))
def test_label_values_are_valid_and_do_not_meet(one: str, other: str) -> None:
    value = label_value(one)
    assert len(value) <= 63
    assert value.replace("-", "").replace(".", "").replace("_", "").isalnum()
    assert value[0].isalnum()
    assert value[-1].isalnum()
    assert (one == other) or (value != label_value(other))
