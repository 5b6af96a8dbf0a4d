"""How much longer a job may be, and that its warnings start anew."""

from datetime import timedelta

from hypothesis import given
from hypothesis import strategies as st

from services.jobs.domain.extension import extension_refusal
from services.jobs.domain.facts import Extend, Warn
from services.jobs.domain.job import Job
from services.jobs.domain.next_step import due_warning
from services.jobs.domain.transition_table import transition_of
from shared.contracts.jobs import JobStatus
from tests.support.jobs import NOW, a_job

WEEK = 168 * 3600


def active(**changes: object) -> Job:
    times = {"launched_at": NOW, "expires_at": NOW + timedelta(hours=1), "pod_uid": "u", "node": "n1"}
    return a_job(status=JobStatus.ACTIVE, **{**times, **changes})


def extended(job: Job, seconds: int) -> Job:
    changed = transition_of(job, Extend(seconds), NOW)
    assert changed is not None
    return changed.job


@given(st.lists(st.integers(1, WEEK), max_size=8))
def test_however_often_it_is_extended_a_job_never_lasts_longer_than_it_may(wishes: list[int]) -> None:
    job = active()
    for seconds in wishes:
        if extension_refusal(job, seconds=seconds, longest_seconds=WEEK, now=NOW) is None:
            job = extended(job, seconds)
    assert job.expires_at is not None
    assert job.expires_at - NOW <= timedelta(seconds=WEEK)
    assert timedelta(seconds=job.duration_seconds) == job.expires_at - NOW


@given(st.integers(3600, WEEK), st.integers(1, WEEK))
def test_what_a_refusal_says_is_left_may_be_had(total: int, seconds: int) -> None:
    job = active(expires_at=NOW + timedelta(seconds=total))
    refusal = extension_refusal(job, seconds=seconds, longest_seconds=WEEK, now=NOW)
    assert (refusal is None) == (total + seconds <= WEEK)
    if refusal is None:
        return
    left = round(float(refusal.rsplit(" ", 3)[-3]) * 3600)
    assert left == WEEK - total
    assert left == 0 or extension_refusal(job, seconds=left, longest_seconds=WEEK, now=NOW) is None


def test_hours_that_are_told_exactly_lose_nothing() -> None:
    for seconds in range(9, 12 * 3600, 9):  # 9 s are 0.0025 hours; 1260 s, 0.35 hours, are a little less as a float
        refusal = extension_refusal(active(), seconds=seconds + 1, longest_seconds=3600 + seconds, now=NOW)
        assert refusal is not None
        assert float(refusal.rsplit(" ", 3)[-3]) == seconds / 3600


def test_an_extension_that_would_end_in_the_past_is_refused() -> None:
    now = NOW + timedelta(hours=2)
    assert "expiring" in (extension_refusal(active(), seconds=3600, longest_seconds=WEEK, now=now) or "")
    assert extension_refusal(active(), seconds=3601, longest_seconds=WEEK, now=now) is None


def test_warnings_start_anew_for_the_new_end() -> None:
    four_before = NOW + timedelta(minutes=56)
    warned = transition_of(active(), Warn(0, 5), four_before)
    assert warned is not None
    assert due_warning(warned.job, four_before) is None
    longer = extended(warned.job, 3600)
    assert (longer.warning, longer.warned_minutes, due_warning(longer, four_before)) == (None, None, None)
    assert due_warning(longer, NOW + timedelta(minutes=91)) == 30
    a_little = extended(warned.job, 600)
    assert due_warning(a_little, four_before) == 15


def test_no_extension_goes_beyond_the_end_of_the_jobs_pod() -> None:
    """Which was made when jobs were to be shorter, and Kubernetes lets no pod live longer than it was to."""
    job = active(pod_ends_at=NOW + timedelta(hours=3))
    assert extension_refusal(job, seconds=2 * 3600, longest_seconds=WEEK, now=NOW) is None
    refusal = extension_refusal(job, seconds=2 * 3600 + 1, longest_seconds=WEEK, now=NOW) or ""
    assert "3 hours from its start at most: it can be extended by 2 hours more" in refusal


def test_one_hour_is_told_as_one() -> None:
    job = active(expires_at=NOW + timedelta(hours=3))
    refusal = extension_refusal(job, seconds=3601, longest_seconds=4 * 3600, now=NOW) or ""
    assert refusal == "A job may last 4 hours from its start at most: it can be extended by 1 hour more"
    refusal = extension_refusal(active(), seconds=1, longest_seconds=3600, now=NOW) or ""
    assert refusal == "A job may last 1 hour from its start at most: it can be extended by 0 hours more"
