"""The tables of what can happen to a disk and to what belongs to it, over their whole product."""

from datetime import UTC, datetime, timedelta
from itertools import product
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from services.disks.domain.claim import CLAIM_TABLE, ClaimEvent, ClaimState
from services.disks.domain.disk import Disk, DiskPhase, DiskState
from services.disks.domain.facts import (
    ClaimAnnounced,
    ClaimLost,
    ClaimReleased,
    DeletionRequested,
    Fact,
    PurgeDue,
    RenameRequested,
    RestoreRequested,
    SnapshotCompleted,
    SnapshotDue,
    SnapshotRefused,
    SnapshotRemoved,
    SnapshotRequested,
    VolumeMade,
    VolumeRefused,
    VolumeRemoved,
)
from services.disks.domain.operation import OPERATION_TABLE, OperationEvent, OperationStatus
from services.disks.domain.refusals import (
    DiskBackingUp,
    DiskBeingMade,
    DiskDeleted,
    DiskExists,
    DiskInUse,
    DiskNotDeleted,
    TooLateToRestore,
)
from services.disks.domain.snapshot import SNAPSHOT_TABLE, SnapshotEvent, SnapshotState
from services.disks.domain.state_tables import state_after
from services.disks.domain.transition_table import change
from shared.errors import GpuDevError, NotFound

NOW = datetime(2026, 1, 20, 18, 30, tzinfo=UTC)
HOUR = timedelta(hours=1)
JOB, OTHER = UUID(int=7), UUID(int=8)
VERSION = 5

FACTS: list[Fact] = [
    VolumeMade(volume_id="vol-2", availability_zone="z2", name_tag="data", operation_id=OTHER),
    VolumeRefused(error="no more", operation_id=OTHER, job_id=JOB),
    ClaimAnnounced(job_id=JOB),
    ClaimLost(job_id=JOB, error="gone"),
    ClaimReleased(job_id=JOB),
    DeletionRequested(operation_id=OTHER, purge_at=NOW + HOUR),
    RestoreRequested(operation_id=OTHER),
    RenameRequested(operation_id=OTHER, new_name="new", taken=False),
    SnapshotRequested(snapshot_id=OTHER),
    SnapshotDue(snapshot_id=OTHER, job_id=JOB),
    SnapshotCompleted(snapshot_id=OTHER, ebs_snapshot_id="snap-1", size_gb=10, job_id=None),
    SnapshotRefused(snapshot_id=OTHER, error="no more"),
    SnapshotRemoved(snapshot_id=OTHER, ebs_snapshot_id="snap-1"),
    PurgeDue(is_source=False),
    VolumeRemoved(),
]


def disk(phase: DiskPhase, **changes: Any) -> Disk:
    """Of that phase, free and at rest; a deleted one is due to be purged in an hour."""
    deleted = phase in {DiskPhase.DELETED, DiskPhase.PURGING, DiskPhase.PURGED}
    made = phase not in {DiskPhase.CREATING, DiskPhase.FAILED}
    whole = Disk(
        id=UUID(int=1),
        user_id=3,
        username="alice",
        name="data",
        size_gb=100,
        state=DiskState.AVAILABLE if phase is DiskPhase.DELETED else DiskState(phase.value),
        availability_zone="z1",
        volume_id="vol-1" if made else None,
        created_at=NOW - HOUR,
        last_used=None,
        deleted_at=NOW - HOUR if deleted else None,
        delete_date=(NOW + HOUR).date() if deleted else None,
        job_id=None,
        backing_up=False,
        snapshot_count=0,
        purge_at=NOW + HOUR if deleted else None,
        name_tag="data" if made else None,
        version=VERSION,
    )
    assert whole.phase is phase
    return replace(whole, **changes)


NOTHING = None
CREATING, AVAILABLE, DELETED = DiskPhase.CREATING, DiskPhase.AVAILABLE, DiskPhase.DELETED
FAILED, PURGING, PURGED = DiskPhase.FAILED, DiskPhase.PURGING, DiskPhase.PURGED
Outcome = tuple[DiskPhase, str] | type[GpuDevError] | None
ROWS: dict[type[Fact], tuple[Outcome, Outcome, Outcome, Outcome, Outcome, Outcome]] = {
    # in the phases: creating, available, deleted, failed, purging, purged
    VolumeMade: ((AVAILABLE, "created"), NOTHING, NOTHING, NOTHING, NOTHING, NOTHING),
    VolumeRefused: ((FAILED, "operation_failed"), NOTHING, NOTHING, NOTHING, NOTHING, NOTHING),
    ClaimAnnounced: (NOTHING, (AVAILABLE, "claimed"), NOTHING, NOTHING, NOTHING, NOTHING),
    ClaimLost: tuple((phase, "operation_failed") for phase in DiskPhase),  # type: ignore[dict-item]
    ClaimReleased: ((CREATING, "released"), (AVAILABLE, "released"), NOTHING, NOTHING, NOTHING, NOTHING),
    DeletionRequested: (DiskBeingMade, (DELETED, "deleted"), DiskDeleted, NotFound, DiskDeleted, NotFound),
    RestoreRequested: (
        DiskNotDeleted,
        DiskNotDeleted,
        (AVAILABLE, "restored"),
        NotFound,
        TooLateToRestore,
        NotFound,
    ),
    RenameRequested: (
        (CREATING, "renamed"),
        (AVAILABLE, "renamed"),
        DiskDeleted,
        NotFound,
        DiskDeleted,
        NotFound,
    ),
    SnapshotRequested: (
        DiskBeingMade,
        (AVAILABLE, "snapshot_started"),
        DiskDeleted,
        NotFound,
        DiskDeleted,
        NotFound,
    ),
    SnapshotDue: (NOTHING, (AVAILABLE, "snapshot_started"), NOTHING, NOTHING, NOTHING, NOTHING),
    SnapshotCompleted: (
        NOTHING,
        (AVAILABLE, "snapshot_completed"),
        (DELETED, "snapshot_completed"),
        NOTHING,
        NOTHING,
        NOTHING,
    ),
    SnapshotRefused: (
        NOTHING,
        (AVAILABLE, "operation_failed"),
        (DELETED, "operation_failed"),
        NOTHING,
        NOTHING,
        NOTHING,
    ),
    SnapshotRemoved: (
        NOTHING,
        (AVAILABLE, "snapshot_deleted"),
        (DELETED, "snapshot_deleted"),
        NOTHING,
        (PURGING, "snapshot_deleted"),
        NOTHING,
    ),
    PurgeDue: (NOTHING, NOTHING, NOTHING, NOTHING, NOTHING, NOTHING),
    VolumeRemoved: (NOTHING, NOTHING, NOTHING, NOTHING, (PURGED, "purged"), NOTHING),
}
PRODUCT = [
    pytest.param(phase, fact, ROWS[type(fact)][column], id=f"{phase}-{type(fact).__name__}")
    for (column, phase), fact in product(enumerate((CREATING, AVAILABLE, DELETED, FAILED, PURGING, PURGED)), FACTS)
]


@pytest.mark.parametrize(("phase", "fact", "expected"), PRODUCT)
def test_every_fact_in_every_phase_is_decided(phase: DiskPhase, fact: Fact, expected: Outcome) -> None:
    before = disk(phase)
    if isinstance(expected, type):
        with pytest.raises(expected):
            change(before, fact, NOW)
        return
    changed = change(before, fact, NOW)
    if changed is None:
        assert expected is None
        return
    assert (changed.disk.phase, changed.events[0].EVENT) == expected
    assert changed.disk.version == VERSION + 1
    assert {event.entity_id for event in changed.events} == {str(before.id)}


def test_every_kind_of_fact_is_in_the_product() -> None:
    assert set(Fact.__subclasses__()) == {type(fact) for fact in FACTS} == set(ROWS)


@pytest.mark.parametrize("phase", [CREATING, AVAILABLE])
@pytest.mark.parametrize("kind", [DeletionRequested, RenameRequested, SnapshotRequested])
def test_what_a_job_would_be_in_the_way_of_is_refused_with_the_job(phase: DiskPhase, kind: type[Fact]) -> None:
    (fact,) = [fact for fact in FACTS if type(fact) is kind]
    with pytest.raises(DiskInUse, match=str(JOB)):
        change(disk(phase, job_id=JOB, backing_up=phase is AVAILABLE), fact, NOW)


@pytest.mark.parametrize("kind", [DeletionRequested, SnapshotRequested])
def test_what_a_snapshot_would_be_in_the_way_of_is_refused(kind: type[Fact]) -> None:
    (fact,) = [fact for fact in FACTS if type(fact) is kind]
    with pytest.raises(DiskBackingUp):
        change(disk(AVAILABLE, backing_up=True), fact, NOW)


def test_a_disk_is_not_claimed_while_it_is_backed_up_and_is_renamed_all_the_same() -> None:
    backing_up = disk(AVAILABLE, backing_up=True)
    assert change(backing_up, ClaimAnnounced(job_id=JOB), NOW) is None
    renamed = change(backing_up, RenameRequested(operation_id=OTHER, new_name="new", taken=False), NOW)
    assert renamed is not None
    assert renamed.disk.name == "new"


def test_no_name_is_given_twice() -> None:
    with pytest.raises(DiskExists):
        change(disk(AVAILABLE), RenameRequested(operation_id=OTHER, new_name="new", taken=True), NOW)


def test_a_deletion_is_taken_back_whole() -> None:
    deleted = change(disk(AVAILABLE), DeletionRequested(operation_id=OTHER, purge_at=NOW + HOUR), NOW)
    assert deleted is not None
    restored = change(deleted.disk, RestoreRequested(operation_id=OTHER), NOW + HOUR / 2)
    assert restored is not None
    assert replace(restored.disk, version=VERSION) == disk(AVAILABLE)


@given(st.integers(-7200, 7200), st.booleans(), st.booleans())
def test_a_deleted_disk_is_either_restorable_or_due_and_purged_only_when_nothing_needs_it(
    late_seconds: int, is_source: bool, backing_up: bool
) -> None:
    deleted = disk(DELETED, purge_at=NOW, backing_up=backing_up)
    now = NOW + timedelta(seconds=late_seconds)
    try:
        is_restorable = change(deleted, RestoreRequested(operation_id=OTHER), now) is not None
    except TooLateToRestore:
        is_restorable = False
    purged = change(deleted, PurgeDue(is_source=is_source), now)

    assert is_restorable == (late_seconds < 0)
    assert (purged is not None) == (late_seconds >= 0 and not is_source and not backing_up)
    if purged is not None:
        assert (purged.disk.phase, purged.events, purged.disk.version) == (PURGING, (), VERSION)


@given(st.lists(st.sampled_from(FACTS), max_size=12), st.booleans(), st.booleans())
def test_no_sequence_of_facts_revives_what_is_gone_or_skips_a_version(
    facts: list[Fact], in_use: bool, backing_up: bool
) -> None:
    now, told = disk(CREATING, job_id=JOB if in_use else None, backing_up=backing_up), 0
    for fact in facts:
        gone = now.phase in {FAILED, PURGED}
        try:
            changed = change(now, fact, NOW)
        except GpuDevError:
            continue
        if changed is None:
            continue
        assert not gone or changed.disk.phase is now.phase
        assert (changed.disk.deleted_at is None) == (changed.disk.purge_at is None)
        assert (changed.disk.volume_id is None) == (changed.disk.phase in {CREATING, FAILED})
        now, told = changed.disk, told + len(changed.events)
    assert now.version == VERSION + told


SNAPSHOTS = {
    (SnapshotState.PENDING, SnapshotEvent.BOUND): SnapshotState.PENDING,
    (SnapshotState.PENDING, SnapshotEvent.COMPLETED): SnapshotState.COMPLETED,
    (SnapshotState.PENDING, SnapshotEvent.REFUSED): SnapshotState.FAILED,
    (SnapshotState.COMPLETED, SnapshotEvent.LET_GO): SnapshotState.DELETING,
    (SnapshotState.DELETING, SnapshotEvent.REMOVED): SnapshotState.DELETED,
}
OPERATIONS = {
    (OperationStatus.QUEUED, OperationEvent.LEASED): OperationStatus.RUNNING,
    (OperationStatus.QUEUED, OperationEvent.SUPERSEDED): OperationStatus.COMPLETED,
    (OperationStatus.RUNNING, OperationEvent.LEASED): OperationStatus.RUNNING,
    (OperationStatus.RUNNING, OperationEvent.POSTPONED): OperationStatus.RUNNING,
    (OperationStatus.RUNNING, OperationEvent.DONE): OperationStatus.COMPLETED,
    (OperationStatus.RUNNING, OperationEvent.REFUSED): OperationStatus.FAILED,
    (OperationStatus.RUNNING, OperationEvent.SUPERSEDED): OperationStatus.COMPLETED,
}
CLAIMS = {
    (ClaimState.PROVISIONAL, ClaimEvent.ASKED): ClaimState.PROVISIONAL,
    (ClaimState.PROVISIONAL, ClaimEvent.SUBMITTED): ClaimState.CONFIRMED,
    (ClaimState.PROVISIONAL, ClaimEvent.SUBMITTED_LATE): ClaimState.CONFIRMED,
    (ClaimState.PROVISIONAL, ClaimEvent.ENDED): ClaimState.RELEASED,
    (ClaimState.PROVISIONAL, ClaimEvent.DISK_FAILED): ClaimState.DROPPED,
    (ClaimState.PROVISIONAL, ClaimEvent.EXPIRED): ClaimState.DROPPED,
    (ClaimState.CONFIRMED, ClaimEvent.ENDED): ClaimState.RELEASED,
    (ClaimState.CONFIRMED, ClaimEvent.DISK_FAILED): ClaimState.DROPPED,
    (ClaimState.DROPPED, ClaimEvent.ASKED): ClaimState.PROVISIONAL,
    (ClaimState.DROPPED, ClaimEvent.SUBMITTED_LATE): ClaimState.CONFIRMED,
    (ClaimState.DROPPED, ClaimEvent.ENDED_WITHOUT): ClaimState.RELEASED,
}


@pytest.mark.parametrize(
    ("table", "states", "events", "expected"),
    [
        pytest.param(SNAPSHOT_TABLE, SnapshotState, SnapshotEvent, SNAPSHOTS, id="snapshots"),
        pytest.param(OPERATION_TABLE, OperationStatus, OperationEvent, OPERATIONS, id="operations"),
        pytest.param(CLAIM_TABLE, ClaimState, ClaimEvent, CLAIMS, id="claims"),
    ],
)
def test_every_event_in_every_state_is_decided(table: Any, states: Any, events: Any, expected: Any) -> None:
    found = {(state, event): state_after(table, state, event) for state, event in product(states, events)}
    assert {pair: after for pair, after in found.items() if after is not None} == expected
