"""A job's queue entry under its events: any order and any repetition ends the same."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from services.capacity.domain.queue_entry import EntryState, QueueEntry, ends_lease, entry_after
from shared.contracts.jobs import (
    JobCancelRequested,
    JobEnded,
    JobEvent,
    JobExtended,
    JobReady,
    JobRequeued,
    JobStarted,
    JobStatus,
    JobSubmitted,
)

NOW = datetime(2026, 1, 20, 18, 30, tzinfo=UTC)
JOB: dict[str, Any] = {"job_id": UUID(int=1), "user_id": 7, "username": "alice"}
SUBMITTED = JobSubmitted(
    **JOB,
    status=JobStatus.PENDING,
    instance_type="p5.48xlarge",
    gpu_type="h100",
    gpu_count=8,
    duration_seconds=3600,
    submitted_at=NOW,
    waits_for_disk=True,
)
READY = JobReady(**JOB, status=JobStatus.QUEUED, availability_zone="us-east-2a")
STARTED = JobStarted(
    **JOB, status=JobStatus.ACTIVE, node="n1", epoch=1, started_at=NOW, expires_at=NOW + timedelta(hours=1)
)
EXTENDED = JobExtended(**JOB, status=JobStatus.ACTIVE, expires_at=NOW + timedelta(hours=2), extension_seconds=3600)
CANCEL = JobCancelRequested(**JOB, status=JobStatus.ACTIVE)
ENDED = JobEnded(**JOB, status=JobStatus.CANCELLED, ended_at=NOW + timedelta(hours=1), epoch=1)
REQUEUED = JobRequeued(**JOB, status=JobStatus.QUEUED, epoch=1, reason="pod lost")
LIFE: list[tuple[int, JobEvent]] = list(enumerate([SUBMITTED, READY, STARTED, EXTENDED, CANCEL, ENDED], start=1))
NEW = QueueEntry(job_id=UUID(int=1))


def after(events: list[tuple[int, JobEvent]], entry: QueueEntry = NEW) -> QueueEntry:
    for sequence, event in events:
        entry = entry_after(entry, event, sequence)
    return entry


@st.composite
def disorderly(draw: st.DrawFn) -> tuple[list[tuple[int, JobEvent]], list[tuple[int, JobEvent]]]:
    prefix = LIFE[: draw(st.integers(1, len(LIFE)))]
    repeated = prefix + draw(st.lists(st.sampled_from(prefix), max_size=4))
    return prefix, draw(st.permutations(repeated))


@given(disorderly())
def test_events_in_any_order_and_repeated_end_in_the_same_place(
    orders: tuple[list[tuple[int, JobEvent]], list[tuple[int, JobEvent]]],
) -> None:
    prefix, disordered = orders
    assert after(disordered) == after(prefix)


@given(st.lists(st.sampled_from([*LIFE, (7, REQUEUED)]), max_size=8))
def test_ended_is_absorbing(events: list[tuple[int, JobEvent]]) -> None:
    over = after(LIFE)
    assert after(events, over).state == EntryState.ENDED
    assert after(events, over).node is None


@pytest.mark.parametrize("state", list(EntryState))
def test_ending_gives_back_exactly_a_lease(state: EntryState) -> None:
    entry = structs.replace(after(LIFE[:2]), state=state, epoch=1)
    assert ends_lease(entry, entry_after(entry, ENDED, 9)) == (state == EntryState.LEASED)


def test_a_requeue_of_an_older_lease_changes_nothing_but_the_status() -> None:
    leased = structs.replace(after(LIFE[:2]), state=EntryState.LEASED, epoch=2, node="n1")
    assert entry_after(leased, REQUEUED, 1) == leased
    now = entry_after(structs.replace(leased, epoch=1), REQUEUED, 3)
    assert (now.state, now.node) == (EntryState.WAITING, None)


def test_a_job_that_lost_its_node_is_queued_again_when_jobs_says_so() -> None:
    revoked = structs.replace(after(LIFE[:2]), state=EntryState.REVOKED, epoch=1)
    assert entry_after(revoked, REQUEUED, 3).state == EntryState.WAITING
    assert entry_after(revoked, READY, 3).state == EntryState.REVOKED


def test_the_zone_of_a_disk_that_was_made_later_is_known_when_the_job_is_ready() -> None:
    assert after(LIFE[:1]).zone is None
    assert after(LIFE[:2]).zone == "us-east-2a"


def test_an_older_status_is_not_taken() -> None:
    assert after([(3, STARTED), (1, SUBMITTED)]).status == JobStatus.ACTIVE
