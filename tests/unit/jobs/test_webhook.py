"""The rules of webhooks: addresses, signatures, attempts, and how a message reads in Slack."""

import base64
import hmac
import json
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any
from uuid import UUID

import msgspec
import pytest

from services.jobs.domain.webhook import (
    TURN_NEAR,
    Delivery,
    is_allowed,
    is_turn_near,
    new_secret,
    next_attempt,
    parse_networks,
    signed_headers,
    slack_body,
    url_fault,
)
from shared.contracts.capacity import JobQueued
from shared.contracts.events import CloudEvent

NOW = datetime(2026, 1, 20, 18, 30, tzinfo=UTC)
JOB = UUID("3f2a8c1e-0000-4000-8000-000000000000")
END = "2026-01-20T22:30:00"


def delivery(name: str, data: dict[str, Any]) -> Delivery:
    event = CloudEvent(
        id=JOB,
        source="/gpudev/jobs",
        type=f"dev.gpudev.{name}.v1",
        subject=str(JOB),
        time=NOW,
        sequence=1,
        messageid=1,
        data=msgspec.Raw(msgspec.json.encode(data)),
    )
    body = msgspec.json.encode(event)
    return Delivery(id=1, message_id=JOB, type=name, body=body, attempts=0, created_at=NOW)


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "10.0.0.1",
        "172.16.0.1",
        "192.168.1.1",
        "169.254.169.254",
        "100.64.0.1",
        "0.0.0.0",
        "224.0.0.1",
        "255.255.255.255",
        "::1",
        "::",
        "fe80::1",
        "fc00::1",
        "ff02::1",
        "::ffff:127.0.0.1",
        "::ffff:10.0.0.1",
        "64:ff9b::7f00:1",
        "2002:7f00:1::",
        "fd00:ec2::254",
        "no address",
    ],
)
def test_what_is_not_public_is_refused_however_it_is_written(address: str) -> None:
    assert not is_allowed(address, ())


@pytest.mark.parametrize("address", ["93.184.215.14", "2606:4700::1111", "::ffff:93.184.215.14"])
def test_what_is_public_is_allowed(address: str) -> None:
    assert is_allowed(address, ())


def test_configured_networks_are_allowed_and_no_others() -> None:
    networks = parse_networks("10.1.0.0/16, fd00::/8")
    assert [is_allowed(one, networks) for one in ("10.1.2.3", "10.2.0.1", "fd00::1", "::ffff:10.1.2.3")] == [
        True,
        False,
        True,
        True,
    ]


@pytest.mark.parametrize(
    "url",
    [
        "ftp://example.org/",
        "example.org",
        "https://",
        "https://user:pw@example.org/",
        "https://example.org/#a",
        "https://example.org:99999/",
        "https://example.org:0/",
        "https://exa mple.org/",
        "https://ä.org/",
        "https://[::1/",
        "https://example.org/" + "a" * 2048,
    ],
)
def test_a_url_that_nothing_can_be_sent_to_is_refused(url: str) -> None:
    assert url_fault(url) is not None


def test_a_message_is_signed_as_standard_webhooks_says() -> None:
    secret = new_secret(b"k" * 32)
    assert secret.startswith("whsec_")
    headers = signed_headers(delivery("jobs.started", {}), secret, b'{"a": 1}', NOW)
    assert (headers["webhook-id"], headers["webhook-timestamp"]) == (str(JOB), "1768933800")
    signed = f"{JOB}.1768933800.".encode() + b'{"a": 1}'
    wanted = base64.b64encode(hmac.digest(b"k" * 32, signed, "sha256")).decode()
    assert headers["webhook-signature"] == f"v1,{wanted}"


def test_it_is_tried_for_a_day_after_longer_and_longer_pauses() -> None:
    moments, now, attempts = [NOW], NOW, 1
    while (moment := next_attempt(attempts, NOW, now)) is not None:
        moments.append(moment)
        now, attempts = moment, attempts + 1
    pauses = [after - before for before, after in pairwise(moments)]
    assert pauses == sorted(pauses)
    assert pauses[0] <= timedelta(seconds=10)
    assert timedelta(hours=22) < moments[-1] - NOW <= timedelta(days=1)


@pytest.mark.parametrize(
    ("position", "starts_in", "near"),
    [(1, None, True), (2, None, False), (5, 9, True), (5, 11, False), (1, 500, True), (3, -1, True)],
)
def test_a_turn_is_near_at_the_head_of_the_queue_or_ten_minutes_before(
    position: int, starts_in: int | None, *, near: bool
) -> None:
    start = None if starts_in is None else NOW + timedelta(minutes=starts_in)
    queued = JobQueued(job_id=JOB, gpu_type="h100", position=position, estimated_start_at=start)
    assert is_turn_near(queued, NOW) is near


@pytest.mark.parametrize(
    ("name", "data", "text"),
    [
        ("jobs.started", {"node": "gpu-1", "expires_at": f"{END}Z"}, f"has started on gpu-1, until {END}Z"),
        ("jobs.started", {"node": "gpu-1", "expires_at": f"{END}.000123Z"}, f"has started on gpu-1, until {END}Z"),
        ("jobs.expiring", {"minutes_left": 15}, "ends in 15 minutes"),
        ("jobs.ended", {"status": "completed"}, "has ended: completed"),
        ("jobs.ended", {"status": "failed", "failure_reason": "<!channel> & co"}, "failed (&lt;!channel&gt; &amp; co)"),
        (TURN_NEAR, {"position": 1}, "number 1 in the queue"),
        ("jobs.extended", {}, "extended"),
        ("disks.snapshot_completed", {"disk_name": "data"}, "Disk data: snapshot completed"),
        ("webhooks.test", {"webhook_id": str(JOB)}, "can reach this channel"),
    ],
)
def test_slack_gets_a_line_of_text(name: str, data: dict[str, Any], text: str) -> None:
    body = json.loads(slack_body(delivery(name, data)))
    assert list(body) == ["text"]
    assert text in body["text"]
