"""Webhooks: what is told to whom, when it is tried again, and how a message looks. Pure."""

import base64
import hmac
import ipaddress
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID, uuid5

import msgspec

from shared.contracts.asyncapi import event_name, event_types
from shared.contracts.capacity import JobQueued
from shared.contracts.events import CloudEvent

TURN_NEAR = "jobs.turn_near"
"""The first `capacity.queued` of a job that is first in its queue, or is to start soon; once for each job."""
TOLD_EVENTS = tuple(event_name(event) for event in event_types() if event.DOMAIN in {"jobs", "disks"})
TYPES = (*TOLD_EVENTS, TURN_NEAR)
"""What a webhook may be told."""
DEFAULT_TYPES = ("jobs.started", "jobs.expiring", "jobs.ended", TURN_NEAR)
TEST_TYPE = "dev.gpudev.webhooks.test.v1"
SECRET_BYTES = 32
_SECRET_PREFIX = "whsec_"  # noqa: S105 - Standard Webhooks' own, and no secret
_NEAR = timedelta(minutes=10)
_RETRY_FOR = timedelta(days=1)
_PAUSES_SECONDS = (5, 15, 60, 300, 900, 1800, 3600)
"""The last one again and again."""
_MAX_URL = 2048
_NAT64 = ipaddress.ip_network("64:ff9b::/96")
_IPV4_BYTES = 4

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class WebhookFormat(StrEnum):
    EVENTS = "events"
    """The CloudEvent, signed."""
    SLACK = "slack"
    """A line of text, for Slack's incoming webhooks."""


class DeliveryStatus(StrEnum):
    PENDING = "pending"
    DELIVERED = "delivered"
    PARKED = "parked"
    """Given up after a day."""


class Target(msgspec.Struct, frozen=True):
    """What of a webhook is secret: Slack's URLs are, too."""

    url: str
    secret: str
    """`whsec_` and Base64."""


class Webhook(msgspec.Struct, frozen=True, kw_only=True):
    id: UUID
    user_id: int
    types: list[str]
    job_id: UUID | None
    """Only what is about this job; None: about all of its user's."""
    format: WebhookFormat
    sealed: bytes
    """Its target."""
    created_at: datetime


class Delivery(msgspec.Struct, frozen=True, kw_only=True):
    """A message for a webhook."""

    id: int
    message_id: UUID
    """The event's, the same at each attempt."""
    type: str
    body: bytes
    """The CloudEvent."""
    attempts: int
    created_at: datetime


class Attempt(msgspec.Struct, frozen=True):
    """What came of sending a message."""

    status: int | None
    """Of HTTP; None: there was no answer."""
    error: str | None
    """For the webhook's owner; None: it was taken."""


def new_secret(random: bytes) -> str:
    """The secret of a webhook, as its owner is told it."""
    return _SECRET_PREFIX + base64.b64encode(random).decode()


def signed_headers(delivery: Delivery, secret: str, body: bytes, now: datetime) -> dict[str, str]:
    """Headers of Standard Webhooks (https://www.standardwebhooks.com)."""
    moment = str(int(now.timestamp()))
    key = base64.b64decode(secret.removeprefix(_SECRET_PREFIX))
    text = b"%b.%b.%b" % (str(delivery.message_id).encode(), moment.encode(), body)
    signature = base64.b64encode(hmac.digest(key, text, "sha256")).decode()
    return {
        "webhook-id": str(delivery.message_id),
        "webhook-timestamp": moment,
        "webhook-signature": f"v1,{signature}",
    }


def next_attempt(attempts: int, created_at: datetime, now: datetime) -> datetime | None:
    """When to try again after so many failed attempts; None: no more."""
    pause = timedelta(seconds=_PAUSES_SECONDS[min(attempts, len(_PAUSES_SECONDS)) - 1])
    return now + pause if now + pause <= created_at + _RETRY_FOR else None


def is_turn_near(queued: JobQueued, now: datetime) -> bool:
    """Whether a job's owner may want to get ready."""
    start = queued.estimated_start_at
    return queued.position == 1 or (start is not None and start <= now + _NEAR)


def turn_near_id(job_id: UUID) -> UUID:
    """Id of the message that says so, of which there is one for each job."""
    return uuid5(job_id, TURN_NEAR)


def url_fault(url: str) -> str | None:
    """Why nothing can be sent to a URL; None when something can."""
    if len(url) > _MAX_URL or not url.isprintable() or not url.isascii() or " " in url:
        return f"Must be a URL of at most {_MAX_URL} printable ASCII characters"
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return "Must be a URL"
    if parts.scheme not in {"https", "http"} or not parts.hostname:
        return "Must begin with https:// or http:// and name a host"
    if parts.username is not None or parts.password is not None or parts.fragment or port == 0:
        return "Must have no user, password or fragment, and no port 0"
    return None


def is_allowed(address: str, networks: tuple[Network, ...]) -> bool:
    """Whether messages may be sent to an address: a public one, or one that is configured."""
    try:
        found = _meant(ipaddress.ip_address(address))
    except ValueError:
        return False
    if any(found.version == network.version and found in network for network in networks):
        return True
    return found.is_global and not found.is_multicast


def _meant(address: Address) -> Address:
    """The IPv4 address that an IPv6 address leads to; else the address itself."""
    if isinstance(address, ipaddress.IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour
        if inner is None and address in _NAT64:
            inner = ipaddress.IPv4Address(address.packed[-_IPV4_BYTES:])
        return inner or address
    return address


def parse_networks(text: str) -> tuple[Network, ...]:
    """Networks joined by commas, such as 10.1.0.0/16.

    Raises:
        ValueError: One is none.
    """
    return tuple(ipaddress.ip_network(part.strip()) for part in text.split(",") if part.strip())


def slack_body(delivery: Delivery) -> bytes:
    """A message as Slack's incoming webhooks take it."""
    return msgspec.json.encode({"text": _line(delivery)})


def _line(delivery: Delivery) -> str:
    event = msgspec.json.decode(delivery.body, type=CloudEvent)
    data: dict[str, Any] = msgspec.json.decode(event.data)
    subject = f"Job `{event.subject[:8]}`"
    if delivery.type == TURN_NEAR:
        return f"{subject} is about to start: it is number {data['position']} in the queue"
    if delivery.type == "jobs.started":
        end = datetime.fromisoformat(data["expires_at"])
        return f"{subject} has started on {_plain(data['node'])}, until {end:%Y-%m-%dT%H:%M:%SZ}"
    if delivery.type == "jobs.expiring":
        return f"{subject} ends in {data['minutes_left']} minutes"
    if delivery.type == "jobs.ended":
        reason = data.get("failure_reason")
        return f"{subject} has ended: {data['status']}" + (f" ({_plain(reason)})" if reason else "")
    if event.type == TEST_TYPE:
        return "GPU Dev can reach this channel"
    named = f"Disk {_plain(data['disk_name'])}" if "disk_name" in data else subject
    return f"{named}: {delivery.type.partition('.')[2].replace('_', ' ')}"


def _plain(text: str) -> str:
    """Without what Slack would take for a link or a mention."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
