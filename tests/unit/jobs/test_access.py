"""Who may enter a job, and whether Jupyter runs in it."""

from datetime import datetime, timedelta
from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from services.jobs.domain.access import BARE, entry_asked_at, first_users, next_try
from services.jobs.domain.facts import (
    Fact,
    HostKeysRead,
    JupyterFailed,
    JupyterRequested,
    JupyterSwitched,
    KeysApplied,
    KeysFetched,
    PodGone,
    PodReady,
    UserDelayed,
    UserRefused,
    UserRequested,
)
from services.jobs.domain.job import Job, JobUser, UserState
from services.jobs.domain.transition_table import transition_of
from shared.contracts.jobs import JobStatus
from tests.support.jobs import NOW, a_job

LEASE: dict[str, Any] = {"epoch": 1, "node": "n1", "pod_uid": "u"}


def active(**changes: Any) -> Job:
    box = {"launched_at": NOW, "expires_at": NOW + timedelta(hours=1), "ssh_host_keys": ["ssh-ed25519 AAAA"]}
    return a_job(status=JobStatus.ACTIVE, **{**LEASE, **box, **changes})


def a_user(name: str, state: UserState, requested_at: datetime = NOW) -> JobUser:
    return JobUser(name=name, state=state, requested_at=requested_at)


def after(job: Job, *facts: Fact) -> tuple[Job, list[str]]:
    told: list[str] = []
    for fact in facts:
        changed = transition_of(job, fact, NOW)
        if changed is not None:
            job, told = changed.job, [*told, *(event.EVENT for event in changed.events)]
    return job, told


def test_a_user_is_added_when_his_keys_are_in_the_pod() -> None:
    job, told = after(active(), UserRequested("Bob"), KeysFetched(1, "bob"))
    assert (job.secondary_users, job.wants_access_work, told) == ([], True, ["user_requested"])
    job, told = after(job, KeysApplied(1, ("BOB",)))
    assert (job.secondary_users, job.wants_access_work, told) == (["Bob"], False, ["user_added"])


def test_asking_again_changes_nothing_unless_he_was_refused() -> None:
    asked, _ = after(active(), UserRequested("bob"))
    assert transition_of(asked, UserRequested("BOB"), NOW) is None
    refused, told = after(asked, UserRefused(1, "bob", "no keys"))
    assert (refused.access_error, refused.wants_access_work, told) == ("bob: no keys", False, ["user_refused"])
    again, told = after(refused, UserRequested("BOB"))
    assert ([user.name for user in again.users], again.access_error, told) == (["BOB"], None, ["user_requested"])


def test_keys_of_another_lease_open_nothing() -> None:
    job, told = after(
        active(), UserRequested("bob"), KeysFetched(2, "bob"), KeysFetched(1, "bob"), KeysApplied(2, ("bob",))
    )
    assert (job.secondary_users, told) == ([], ["user_requested"])


def preparing(**changes: Any) -> Job:
    users = first_users("alice", bare=False, now=NOW)
    return a_job(status=JobStatus.PREPARING, github_user="alice", users=users, **{**LEASE, **changes})


def test_the_first_users_keys_are_there_from_the_start_or_follow() -> None:
    job, told = after(preparing(ssh_host_keys=[]), KeysFetched(1, "alice"), PodReady(1, "ip"))
    assert (job.users[0].state, job.wants_access_work, job.secondary_users) == (UserState.ADDED, False, [])
    assert told == ["started"]
    job, told = after(preparing(ssh_host_keys=[]), UserDelayed(1, "alice", "away"), PodReady(1, "ip"))
    assert (job.access_error, job.wants_access_work) == ("alice: away", True)
    job, told = after(job, KeysFetched(1, "alice"), KeysApplied(1, ("alice",)))
    assert (job.access_error, job.wants_access_work, told) == (None, False, ["user_added"])


def test_a_job_without_ssh_says_so() -> None:
    assert [(user.state, user.reason) for user in first_users("alice", bare=True, now=NOW)] == [
        (UserState.REFUSED, BARE)
    ]
    assert first_users(None, bare=True, now=NOW) == []


ON, OFF = JupyterRequested(b"one"), JupyterRequested(None)


def test_jupyter_is_on_when_it_answers_and_off_at_the_wish() -> None:
    wanted, told = after(active(), ON)
    assert (wanted.jupyter_enabled, wanted.wants_access_work, told) == (False, True, ["jupyter_requested"])
    assert transition_of(wanted, JupyterRequested(b"two"), NOW) is None
    on, told = after(wanted, JupyterSwitched(1, 1))
    assert (on.jupyter_enabled, on.jupyter_token_sealed, on.wants_access_work) == (True, b"one", False)
    assert told == ["jupyter_enabled"]
    off, told = after(on, OFF, JupyterSwitched(1, 2))
    assert (off.jupyter_enabled, off.jupyter_token_sealed) == (False, None)
    assert told == ["jupyter_requested", "jupyter_disabled"]
    assert transition_of(off, OFF, NOW) is None
    anew, _ = after(off, JupyterRequested(b"two"), JupyterSwitched(1, 3))
    assert anew.jupyter_token_sealed == b"two"


def test_a_failure_is_told_and_may_be_tried_again() -> None:
    failed, told = after(active(), ON, JupyterFailed(1, 1, "no space"))
    assert (failed.jupyter_enabled, failed.jupyter_error, failed.wants_access_work) == (False, "no space", False)
    assert told == ["jupyter_requested", "jupyter_failed"]
    again, _ = after(failed, JupyterRequested(b"two"))
    assert (again.jupyter_error, again.jupyter_token_sealed, again.wants_access_work) == (None, b"two", True)


def test_the_outcome_of_an_older_wish_is_worthless() -> None:
    job, _ = after(active(), ON, OFF)
    assert transition_of(job, JupyterSwitched(1, 1), NOW) is None
    assert transition_of(job, JupyterFailed(1, 1, "late"), NOW) is None


NAMES = st.sampled_from(["bob", "Bob", "carol"])
FACTS = st.one_of(
    st.builds(UserRequested, NAMES),
    st.builds(KeysFetched, st.just(1), NAMES),
    st.builds(UserDelayed, st.just(1), NAMES, st.just("away")),
    st.builds(UserRefused, st.just(1), NAMES, st.just("no keys")),
    st.builds(KeysApplied, st.just(1), st.lists(NAMES, max_size=3).map(tuple)),
    st.sampled_from([ON, OFF]),
    st.builds(JupyterSwitched, st.just(1), st.integers(1, 4)),
    st.builds(JupyterFailed, st.just(1), st.integers(1, 4), st.just("no space")),
)


@given(st.lists(FACTS, max_size=25))
def test_in_whatever_order_it_comes_each_request_has_one_outcome(facts: list[Fact]) -> None:
    job, told = after(active(), *facts)
    names = [user.name.lower() for user in job.users]
    assert len(names) == len(set(names))
    settled = sum(user.state in {UserState.ADDED, UserState.REFUSED} for user in job.users)
    assert told.count("user_requested") == told.count("user_added") + told.count("user_refused") + len(names) - settled
    assert job.jupyter_applied <= job.jupyter_revision == told.count("jupyter_requested")
    assert (job.jupyter_token_sealed is not None) <= job.jupyter_wanted
    if not job.wants_access_work:
        assert job.jupyter_enabled is job.jupyter_wanted
    assert msgspec.convert(msgspec.to_builtins(job), Job) == job, "as it is stored and read again"


@given(st.floats(0, 10_000))
def test_what_cannot_be_done_is_tried_ever_more_rarely(seconds: float) -> None:
    wait = next_try(NOW, NOW + timedelta(seconds=seconds)) - (NOW + timedelta(seconds=seconds))
    assert timedelta(seconds=1) <= wait <= timedelta(seconds=30)


def test_the_host_keys_of_a_pod_are_read_once_and_forgotten_with_it() -> None:
    fresh = active(ssh_host_keys=None, users=[a_user("alice", UserState.ADDED)])
    assert fresh.wants_access_work
    known, told = after(fresh, HostKeysRead(1, ("ssh-ed25519 BBBB",)))
    assert (known.ssh_host_keys, known.wants_access_work, told) == (["ssh-ed25519 BBBB"], False, [])
    assert transition_of(known, HostKeysRead(2, ("ssh-ed25519 CCCC",)), NOW) is None, "of another lease"
    none, _ = after(fresh, HostKeysRead(1, ()))
    assert (none.ssh_host_keys, none.wants_access_work) == ([], False)
    lost = msgspec.structs.replace(known, requeue_reason="r", status=JobStatus.PREPARING)
    requeued = transition_of(lost, PodGone(1), NOW)
    assert requeued is not None
    assert requeued.job.ssh_host_keys is None


def test_host_keys_are_wanted_of_a_pod_that_somebody_may_enter_from_when_they_may() -> None:
    nobody = active(ssh_host_keys=None)
    refused = active(ssh_host_keys=None, users=[a_user("mallory", UserState.REFUSED)])
    assert not nobody.wants_access_work
    assert not refused.wants_access_work
    later = NOW + timedelta(hours=1)
    asked = transition_of(refused, UserRequested("bob"), later)
    assert asked is not None
    assert entry_asked_at(asked.job) == later
    added, _ = after(asked.job, KeysFetched(1, "bob"), KeysApplied(1, ("bob",)))
    assert (added.awaits_host_keys, added.wants_access_work) == (True, True)
    known, _ = after(added, HostKeysRead(1, ("ssh-ed25519 BBBB",)))
    assert not known.wants_access_work
