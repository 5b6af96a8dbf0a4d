from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import msgspec
import pytest

from services.jobs.domain.event_channels import Topic, channels_of, job_channel, read_event, topic_channels
from shared.contracts.events import CloudEvent

JOB = UUID("3f2a0000-0000-4000-8000-000000000001")


def event(name: str, **data: Any) -> CloudEvent:
    return CloudEvent(
        id=JOB,
        source="/gpudev/x",
        type=f"dev.gpudev.{name}.v1",
        subject="x",
        time=datetime(2026, 1, 20, tzinfo=UTC),
        sequence=1,
        messageid=1,
        data=msgspec.Raw(msgspec.json.encode(data)),
    )


@pytest.mark.parametrize(
    ("name", "data", "channels"),
    [
        ("jobs.started", {"job_id": JOB, "user_id": 7}, {"jobs:7", "jobs:*", job_channel(JOB)}),
        ("jobs.of_tomorrow", {"job_id": JOB, "user_id": 7}, {"jobs:7", "jobs:*", job_channel(JOB)}),
        ("capacity.queued", {"job_id": JOB}, {"jobs:9", "jobs:*", job_channel(JOB)}),
        ("capacity.node_changed", {"node": "n1"}, {"cluster"}),
        ("disks.released", {"job_id": JOB, "user_id": 7}, {"disks:7", "disks:*"}),
        ("auth.key_issued", {"user_id": 7}, set()),
        ("of_tomorrow.happened", {"user_id": 7}, set()),
    ],
)
def test_an_event_is_heard_by_whom_it_concerns(name: str, data: dict[str, Any], channels: set[str]) -> None:
    assert channels_of(read_event(event(name, **data)), {JOB: 9}) == channels


def test_an_event_of_an_unknown_job_is_heard_by_no_user() -> None:
    assert channels_of(read_event(event("capacity.queued", job_id=JOB)), {}) == {"jobs:*", job_channel(JOB)}


def test_users_listen_to_what_is_theirs_and_to_what_is_everybodys() -> None:
    assert topic_channels(Topic, [7, 8]) == {"jobs:7", "jobs:8", "disks:7", "disks:8", "cluster"}
    assert topic_channels([Topic.JOBS], None) == {"jobs:*"}
