"""The table of phases and facts, over its whole product."""

from datetime import UTC, datetime, timedelta
from itertools import product
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from services.jobs.domain.access import NO_ANSWER_YET
from services.jobs.domain.facts import (
    Cancel,
    CommandEnded,
    DiskFailed,
    DiskReady,
    Expire,
    Extend,
    Fact,
    Granted,
    JupyterFailed,
    JupyterSwitched,
    KeysApplied,
    KeysFetched,
    PodFailed,
    PodGone,
    PodMade,
    PodReady,
    PodRefused,
    PodRestarted,
    PodWaits,
    PortsMoved,
    QueueMoved,
    Revoked,
    UserDelayed,
    UserRefused,
    UserRequested,
    Warn,
)
from services.jobs.domain.job import ENDED_STATUSES, Job, JobUser, Phase, UserState
from services.jobs.domain.next_step import Limits, Record, Rest, next_step
from services.jobs.domain.pod_facts import PodFacts, PodState
from services.jobs.domain.transition_table import transition_of
from services.jobs.storage.jobs import MOVED
from shared.contracts.jobs import JobEvent, JobStatus

NOW = datetime(2026, 1, 20, 18, 30, tzinfo=UTC)
EPOCH = 3
NEW_LEASE, OLD_LEASE = 4, 2


def user(name: str, state: UserState = UserState.REQUESTED, **changes: Any) -> JobUser:
    return JobUser(name=name, state=state, requested_at=NOW, **changes)


def job(phase: Phase, **changes: Any) -> Job:
    lease: dict[str, Any] = {"epoch": EPOCH, "node": "n1", "granted_at": NOW}
    active = {**lease, "launched_at": NOW, "expires_at": NOW + timedelta(hours=1), "pod_uid": "u", "pod_name": "p"}
    done: dict[str, Any] = {**active, "outcome": JobStatus.FAILED, "ended_at": NOW}
    fields: dict[Phase, tuple[JobStatus, dict[str, Any]]] = {
        Phase.PENDING: (JobStatus.PENDING, {}),
        Phase.QUEUED: (JobStatus.QUEUED, {"epoch": EPOCH}),
        Phase.PREPARING: (JobStatus.PREPARING, lease),
        Phase.STARTING: (JobStatus.PREPARING, active),
        Phase.GIVING_BACK: (JobStatus.PREPARING, {**lease, "requeue_reason": "no room"}),
        Phase.ACTIVE: (JobStatus.ACTIVE, active),
        Phase.ENDING: (JobStatus.ACTIVE, {**active, "outcome": JobStatus.COMPLETED}),
        Phase.HELD: (JobStatus.FAILED, done),
        Phase.ENDED: (JobStatus.FAILED, {**done, "released_at": NOW}),
    }
    status, rest = fields[phase]
    made = Job(
        id=UUID(int=1),
        user_id=1,
        username="alice",
        image="i",
        instance_type="p5.48xlarge",
        gpu_type="h100",
        gpu_count=8,
        duration_seconds=3600,
        status=status,
        submit_message_id=1,
        created_at=NOW,
        updated_at=NOW,
        version=7,
        revision=11,
        users=[user("bob"), user("carol", UserState.FETCHED)],
        jupyter_wanted=True,
        jupyter_revision=1,
        jupyter_token_sealed=b"sealed",
        **rest,
    )
    assert made.phase is phase
    return replace(made, **changes)


def facts(epoch: int) -> list[Fact]:
    return [
        DiskReady("vol-1", "az1"),
        DiskFailed("no disk"),
        QueueMoved(2, None, None),
        Granted(epoch, "n2"),
        Revoked(epoch, "node gone"),
        PodMade(epoch, "p", "other-uid", 30001),
        PodWaits(epoch, "pulling", "image"),
        PodRestarted(epoch, 1, "out of memory"),
        PortsMoved(epoch, 30002, None, "made anew"),
        PodReady(epoch, "10.0.0.1"),
        CommandEnded(epoch, 0),
        CommandEnded(epoch, 3),
        PodFailed(epoch, "evicted"),
        PodRefused(epoch, "no room"),
        PodGone(epoch),
        Expire(epoch),
        Warn(epoch, 5),
        Extend(7200),
        Cancel(),
    ]


EVERYTHING = [
    pytest.param(phase, fact, id=f"{phase.name}-{type(fact).__name__}-{epoch}-{number}")
    for phase, epoch in product(Phase, (OLD_LEASE, EPOCH, NEW_LEASE))
    for number, fact in enumerate(facts(epoch))
]

BEGUN = (Phase.PREPARING, Phase.STARTING, Phase.ACTIVE)
LEADS_TO: dict[tuple[Phase, type], tuple[Phase, tuple[str, ...]]] = {
    (Phase.PENDING, DiskReady): (Phase.QUEUED, ("ready",)),
    (Phase.PENDING, DiskFailed): (Phase.ENDED, ("ended",)),
    (Phase.PENDING, QueueMoved): (Phase.PENDING, ()),
    (Phase.PENDING, Cancel): (Phase.ENDED, ("cancel_requested", "ended")),
    (Phase.QUEUED, DiskReady): (Phase.QUEUED, ()),
    (Phase.QUEUED, DiskFailed): (Phase.ENDED, ("ended",)),
    (Phase.QUEUED, QueueMoved): (Phase.QUEUED, ()),
    (Phase.QUEUED, Granted): (Phase.PREPARING, ("preparing",)),
    (Phase.QUEUED, Cancel): (Phase.ENDED, ("cancel_requested", "ended")),
    (Phase.PREPARING, DiskReady): (Phase.PREPARING, ()),
    (Phase.PREPARING, PodMade): (Phase.PREPARING, ()),
    (Phase.PREPARING, PodWaits): (Phase.PREPARING, ()),
    (Phase.PREPARING, PodReady): (Phase.STARTING, ()),
    (Phase.PREPARING, PodFailed): (Phase.ENDING, ()),
    (Phase.PREPARING, PodRefused): (Phase.GIVING_BACK, ()),
    (Phase.PREPARING, Revoked): (Phase.GIVING_BACK, ()),
    (Phase.PREPARING, Cancel): (Phase.ENDING, ("cancel_requested",)),
    (Phase.GIVING_BACK, PodGone): (Phase.QUEUED, ("requeued",)),
    (Phase.GIVING_BACK, Cancel): (Phase.ENDING, ("cancel_requested",)),
    (Phase.ACTIVE, CommandEnded): (Phase.ENDING, ()),
    (Phase.ACTIVE, PodFailed): (Phase.ENDING, ()),
    (Phase.ACTIVE, PodWaits): (Phase.ACTIVE, ()),
    (Phase.ACTIVE, PortsMoved): (Phase.ACTIVE, ()),
    (Phase.ACTIVE, PodRestarted): (Phase.ACTIVE, ("restarted",)),
    (Phase.ACTIVE, Revoked): (Phase.HELD, ("lost",)),
    (Phase.ACTIVE, Warn): (Phase.ACTIVE, ("expiring",)),
    (Phase.ACTIVE, Extend): (Phase.ACTIVE, ("extended",)),
    (Phase.ACTIVE, Expire): (Phase.ENDING, ()),
    (Phase.STARTING, PodReady): (Phase.ACTIVE, ("started",)),
    (Phase.STARTING, Revoked): (Phase.HELD, ("lost",)),
    (Phase.STARTING, Cancel): (Phase.ENDING, ("cancel_requested",)),
    (Phase.STARTING, KeysApplied): (Phase.STARTING, ("user_added",)),
    (Phase.STARTING, JupyterSwitched): (Phase.ACTIVE, ("started", "jupyter_enabled")),
    (Phase.STARTING, JupyterFailed): (Phase.ACTIVE, ("started", "jupyter_failed")),
    **{(phase, fact): (phase, ()) for phase in BEGUN for fact in (KeysFetched, UserDelayed)},
    **{(phase, UserRefused): (phase, ("user_refused",)) for phase in BEGUN},
    (Phase.ACTIVE, UserRequested): (Phase.ACTIVE, ("user_requested",)),
    (Phase.ACTIVE, KeysApplied): (Phase.ACTIVE, ("user_added",)),
    (Phase.ACTIVE, JupyterSwitched): (Phase.ACTIVE, ("jupyter_enabled",)),
    (Phase.ACTIVE, JupyterFailed): (Phase.ACTIVE, ("jupyter_failed",)),
    (Phase.ACTIVE, Cancel): (Phase.ENDING, ("cancel_requested",)),
    (Phase.ENDING, PodGone): (Phase.ENDED, ("ended",)),
    (Phase.ENDING, Revoked): (Phase.HELD, ("lost",)),
    (Phase.ENDING, Cancel): (Phase.ENDING, ("cancel_requested",)),
    (Phase.HELD, PodGone): (Phase.ENDED, ("ended",)),
}
READY = PodFacts(uid="u", state=PodState.READY, detail="running")
RANK = {JobStatus.PENDING: 0, JobStatus.QUEUED: 1, JobStatus.PREPARING: 2, JobStatus.ACTIVE: 3}


def is_stale(fact: Any) -> bool:
    epoch = getattr(fact, "epoch", None)
    return epoch is not None and (epoch <= EPOCH if isinstance(fact, Granted) else epoch != EPOCH)


@pytest.mark.parametrize(("phase", "fact"), EVERYTHING)
def test_each_fact_leads_where_the_table_says_and_nowhere_else(phase: Phase, fact: Fact) -> None:
    before = job(phase)
    changed = transition_of(before, fact, NOW)
    expected = None if is_stale(fact) else LEADS_TO.get((phase, type(fact)))
    if expected is None:
        assert changed is None
        return
    assert changed is not None
    assert (changed.job.phase, tuple(event.EVENT for event in changed.events)) == expected


@pytest.mark.parametrize(("phase", "fact"), EVERYTHING)
def test_each_change_counts_up_and_keeps_the_invariants(phase: Phase, fact: Fact) -> None:
    before = job(phase)
    changed = transition_of(before, fact, NOW)
    if changed is None:
        return
    after = changed.job
    assert (after.version, after.revision) == (before.version + len(changed.events), before.revision + 1)
    assert before.status not in ENDED_STATUSES or after.status is before.status
    if before.outcome is not None and after.outcome is not before.outcome:
        assert after.outcome is JobStatus.CANCELLED
    if changed.events:
        assert changed.events[-1].status is after.status
    if after.status in RANK and before.status in RANK and RANK[after.status] < RANK[before.status]:
        assert [event.EVENT for event in changed.events] == ["requeued"]
    if after.status is not before.status:
        assert changed.events, "a status that users see changes with an event"
    assert (after.failure_reason is not None) <= (after.outcome is JobStatus.FAILED)


def test_a_job_without_its_pods_confirmation_never_tells_that_it_ended() -> None:
    for phase in (Phase.PREPARING, Phase.STARTING, Phase.GIVING_BACK, Phase.ACTIVE, Phase.ENDING, Phase.HELD):
        for fact in facts(EPOCH):
            changed = transition_of(job(phase), fact, NOW)
            ended = changed is not None and any(event.EVENT == "ended" for event in changed.events)
            assert not ended or isinstance(fact, PodGone)


def test_a_command_killed_at_the_end_of_its_time_is_expired() -> None:
    expired = transition_of(job(Phase.ACTIVE), Expire(EPOCH), NOW)
    assert expired is not None
    assert transition_of(expired.job, CommandEnded(EPOCH, 137), NOW) is None
    ended = transition_of(expired.job, PodGone(EPOCH), NOW)
    assert ended is not None
    assert (ended.job.status, ended.job.exit_code) == (JobStatus.EXPIRED, None)


def test_a_cancel_beats_an_outcome_that_was_not_told_yet() -> None:
    failing = transition_of(job(Phase.ACTIVE), PodFailed(EPOCH, "evicted"), NOW)
    assert failing is not None
    cancelled = transition_of(failing.job, Cancel(), NOW)
    assert cancelled is not None
    assert (cancelled.job.outcome, cancelled.job.failure_reason) == (JobStatus.CANCELLED, None)
    assert transition_of(cancelled.job, Cancel(), NOW) is None


def test_the_time_box_begins_when_the_pod_is_ready() -> None:
    later = NOW + timedelta(hours=9)
    started = transition_of(job(Phase.PREPARING), PodReady(EPOCH, "10.0.0.1"), later)
    assert started is not None
    assert (started.job.launched_at, started.job.expires_at) == (later, later + timedelta(hours=1))


def test_a_start_that_is_seen_late_is_as_early_as_it_was() -> None:
    started = transition_of(job(Phase.PREPARING), PodReady(EPOCH, "10.0.0.1", NOW - timedelta(minutes=5)), NOW)
    assert started is not None
    assert started.job.launched_at == NOW - timedelta(minutes=5)
    assert started.job.expires_at == NOW + timedelta(minutes=55)


def test_each_restart_is_told_once_and_its_reason_stays() -> None:
    first = transition_of(job(Phase.ACTIVE), PodRestarted(EPOCH, 1, "Out of memory"), NOW)
    assert first is not None
    assert transition_of(first.job, PodRestarted(EPOCH, 1, "Out of memory"), NOW) is None
    waiting = transition_of(first.job, PodWaits(EPOCH, "starting sshd"), NOW)
    assert waiting is not None
    assert waiting.job.status_reason == "Out of memory"
    third = transition_of(waiting.job, PodRestarted(EPOCH, 3, "Out of memory"), NOW)
    assert third is not None
    assert third.job.status_reason == "Out of memory, 3 times so far"


def test_trouble_in_starting_is_the_reason_while_it_lasts() -> None:
    refused = transition_of(job(Phase.PREPARING), PodWaits(EPOCH, "no quota", "refused"), NOW)
    assert refused is not None
    assert refused.job.status_reason == "no quota"
    going_on = transition_of(refused.job, PodWaits(EPOCH, "pulling"), NOW)
    assert going_on is not None
    assert (going_on.job.status_reason, going_on.job.detail) == (None, "pulling")


def test_a_job_without_jupyter_is_active_when_its_pod_is_ready_and_one_with_it_when_that_is_settled() -> None:
    plain = transition_of(job(Phase.PREPARING, jupyter_wanted=False, jupyter_revision=0), PodReady(EPOCH, "ip"), NOW)
    assert plain is not None
    assert (plain.job.phase, [event.EVENT for event in plain.events]) == (Phase.ACTIVE, ["started"])
    held = transition_of(job(Phase.PREPARING), PodReady(EPOCH, "ip"), NOW)
    assert held is not None
    assert (held.job.status, held.job.wants_access_work) == (JobStatus.PREPARING, True)
    later = NOW + timedelta(seconds=40)
    failed = transition_of(held.job, JupyterFailed(EPOCH, 1, "no space"), later)
    assert failed is not None
    assert (failed.job.phase, failed.job.jupyter_error) == (Phase.ACTIVE, "no space")
    assert failed.job.launched_at == NOW, "its time counts from when its command could run"


@pytest.mark.parametrize(
    ("pod", "seconds", "waits"),
    [
        (READY, 89, True),
        (READY, 91, False),
        (replace(READY, state=PodState.STARTING), 1, True),
        (replace(READY, state=PodState.EXITED), 1, False),
        (replace(READY, deleting=True), 1, False),
        (replace(READY, uid="other"), 1, False),
        (None, 1, False),
    ],
)
def test_jupyter_is_waited_for_while_the_pod_runs_and_not_for_ever(
    pod: PodFacts | None, seconds: int, waits: bool
) -> None:
    held = job(Phase.STARTING, jupyter_requested_at=NOW)
    step = next_step(held, pod, NOW + timedelta(seconds=seconds), Limits())
    assert isinstance(step, Rest) is waits
    if not waits:
        assert isinstance(step, Record), "what became of it is seen when it is active: it is not made again"
        active = transition_of(held, step.fact, NOW)
        assert active is not None
        assert (active.job.phase, active.job.jupyter_error) == (Phase.ACTIVE, NO_ANSWER_YET)
        assert active.job.wants_access_work, "it is still being started"


def test_trouble_counts_from_when_it_began() -> None:
    first = transition_of(job(Phase.PREPARING), PodWaits(EPOCH, "a", "image"), NOW)
    assert first is not None
    second = transition_of(first.job, PodWaits(EPOCH, "b", "image"), NOW + timedelta(seconds=5))
    assert second is not None
    assert second.job.fault_since == NOW
    over = transition_of(second.job, PodWaits(EPOCH, "c", None), NOW + timedelta(seconds=6))
    assert over is not None
    assert over.job.fault_since is None


ALL_FACTS = [fact for epoch in (OLD_LEASE, EPOCH, NEW_LEASE, NEW_LEASE + 1) for fact in facts(epoch)]


@given(st.lists(st.sampled_from(ALL_FACTS), max_size=30), st.sampled_from([Phase.PENDING, Phase.QUEUED]))
def test_whatever_happens_in_whatever_order_versions_have_no_gap_and_the_end_is_the_end(
    happened: list[Fact], start: Phase
) -> None:
    current = job(start, version=1)
    told: list[JobEvent] = []
    for fact in happened:
        changed = transition_of(current, fact, NOW)
        if changed is not None:
            assert current.phase is not Phase.ENDED
            current = changed.job
            told += changed.events
    assert current.version == 1 + len(told)
    names = [event.EVENT for event in told]
    assert names.count("ended") <= 1
    assert "ended" not in names or names[-1] == "ended"
    assert ("cancel_requested" in names) <= (current.outcome in {JobStatus.CANCELLED, None})


@pytest.mark.parametrize("phase", Phase)
def test_a_move_in_the_queue_changes_only_what_its_statement_writes(phase: Phase) -> None:
    before = job(phase)
    moved = transition_of(before, QueueMoved(5, NOW, "GPUs are in use"), NOW)
    if moved is not None:
        same = {name: getattr(before, name) for name in MOVED}
        assert replace(moved.job, **same) == before
        assert moved.events == ()
