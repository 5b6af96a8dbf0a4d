"""What was made by our own order is told from others' copies of it, whatever else is to be seen."""

from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest
from msgspec.structs import replace

from services.disks.domain.aws_objects import TAG_OPERATION, AwsSnapshot, SnapshotOrder, original

ORDER = SnapshotOrder(operation_id=uuid4(), disk_id=uuid4(), user_id=1, disk_name="data", volume_id="vol-1")
OURS = AwsSnapshot(
    snapshot_id="snap-1",
    state="pending",
    volume_id="vol-1",
    description=ORDER.description,
    size_gb=10,
    started_at=datetime(2030, 1, 1, tzinfo=UTC),
    tags=ORDER.tags,
)
COPIES = [
    replace(OURS, snapshot_id="snap-2", volume_id="vol-ffffffff", description="[Copied snap-1 from us-east-2]"),
    replace(OURS, snapshot_id="snap-3", volume_id="vol-ffffffff"),
    replace(OURS, snapshot_id="snap-4", description="Created for policy: nightly"),
    replace(OURS, snapshot_id="snap-5", tags={**ORDER.tags, TAG_OPERATION: str(uuid4())}),
]


@pytest.mark.parametrize("copy", COPIES, ids=lambda copy: copy.snapshot_id)
@pytest.mark.parametrize("later", [timedelta(0), timedelta(hours=1), timedelta(hours=-1)])
@pytest.mark.parametrize("state", ["pending", "completed"])
def test_a_copy_is_never_the_original(copy: AwsSnapshot, later: timedelta, state: str) -> None:
    """Incident 10."""
    copy = replace(copy, started_at=OURS.started_at + later, state=state)

    assert original([copy], ORDER) is None
    assert original([copy, OURS], ORDER) == OURS
    assert original([OURS, copy], ORDER) == OURS


def test_of_two_that_one_order_made_it_is_the_first() -> None:
    second = replace(OURS, snapshot_id="snap-0", started_at=OURS.started_at + timedelta(seconds=1))

    assert original([second, OURS], ORDER) == OURS
