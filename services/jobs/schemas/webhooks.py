"""Webhooks on the wire."""

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

import msgspec
from msgspec import Meta

from services.jobs.domain.webhook import DEFAULT_TYPES, TYPES, DeliveryStatus, WebhookFormat
from shared.database import to_struct
from shared.errors import InvalidInput, Problem
from shared.idempotency import Outcome
from shared.web.response import Answer
from shared.web.validation import PLAIN_TEXT, Body, decode_body

_TYPES = (
    "What is told: events of jobs and disks such as `jobs.started` or `disks.snapshot_completed`, and, once for each "
    "job, `jobs.turn_near`: it is first in its queue, or expected to start within 10 minutes"
)


class WebhookRequest(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    url: Annotated[
        str,
        Meta(
            min_length=1,
            max_length=2048,
            pattern=PLAIN_TEXT,
            description="Where messages are sent by POST. Its host must have public addresses only",
            examples=["https://hooks.example.org/gpudev"],
        ),
    ]
    types: Annotated[
        list[str],
        Meta(min_length=1, max_length=len(TYPES), description=_TYPES, examples=[list(DEFAULT_TYPES)]),
    ] = msgspec.field(default_factory=lambda: list(DEFAULT_TYPES))
    job_id: (
        Annotated[str, Meta(max_length=36, pattern=PLAIN_TEXT, description="Only what is about this job of yours")]
        | None
    ) = None
    format: Annotated[
        WebhookFormat,
        Meta(description="`events`: the CloudEvent. `slack`: a line of text, for an incoming webhook of Slack"),
    ] = WebhookFormat.EVENTS


class WebhookBody(Body[WebhookRequest]):
    """Decodes it; URLs may hold secrets."""

    SECRET_FIELDS = frozenset({"url"})

    def decode(self, value: bytes) -> WebhookRequest:
        """The request.

        Raises:
            InvalidInput: With all problems.
        """
        request = decode_body(value, WebhookRequest)
        unknown = [place for place, name in enumerate(request.types) if name not in TYPES]
        if unknown:
            text = f"Must be one of {', '.join(TYPES)}"
            raise InvalidInput([Problem("literal_error", ("body", "types", place), text) for place in unknown])
        return request


class WebhookAnswer(Answer, frozen=True, kw_only=True):
    webhook_id: UUID
    url: str
    types: list[str]
    job_id: UUID | None
    format: WebhookFormat
    created_at: datetime


class NewWebhookAnswer(WebhookAnswer, frozen=True, kw_only=True):
    secret: str
    """Signs the messages (Standard Webhooks); shown this once."""


class WebhookStateAnswer(WebhookAnswer, frozen=True, kw_only=True):
    pending: int
    """Messages that are still to be delivered."""
    parked: int
    """Messages that were given up after a day."""
    delivered_at: datetime | None
    """When a message was delivered last."""


class MessageAnswer(Answer, frozen=True, kw_only=True):
    message_id: UUID
    """The header `webhook-id`, and the event's own id."""
    type: str
    status: DeliveryStatus
    attempts: int
    created_at: datetime
    next_attempt_at: datetime | None
    last_attempt_at: datetime | None
    last_status: int | None
    """HTTP status of the last answer; None: there was none."""
    last_error: str | None


class WebhookDetails(WebhookStateAnswer, frozen=True, kw_only=True):
    messages: list[MessageAnswer]
    """The latest 50, those that were given up first."""


class WebhookList(msgspec.Struct, frozen=True):
    webhooks: list[WebhookStateAnswer]


class WebhookActionAnswer(msgspec.Struct, frozen=True, kw_only=True):
    webhook_id: UUID
    message: str
    message_id: UUID | None = None
    """Of the message that is sent."""


def new_webhook_answer(outcome: Outcome[Any]) -> Outcome[NewWebhookAnswer]:
    """A webhook as its maker is told it."""
    made = outcome.answer
    answer = NewWebhookAnswer(
        webhook_id=made.id,
        url=made.url,
        types=made.types,
        job_id=made.job_id,
        format=made.format,
        created_at=made.created_at,
        secret=made.secret,
    )
    return Outcome(answer, outcome.replayed)


def action_answer(outcome: Outcome[Any], text: str) -> Outcome[WebhookActionAnswer]:
    """What was done, or will be."""
    done = outcome.answer
    answer = WebhookActionAnswer(webhook_id=done.webhook_id, message=text, message_id=done.message_id)
    return Outcome(answer, outcome.replayed)


def state_fields(state: Any) -> dict[str, Any]:
    """What is shown of a webhook."""
    webhook = state.webhook
    return {
        "webhook_id": webhook.id,
        "url": state.url,
        "types": webhook.types,
        "job_id": webhook.job_id,
        "format": webhook.format,
        "created_at": webhook.created_at,
        "pending": state.pending,
        "parked": state.parked,
        "delivered_at": state.delivered_at,
    }


def webhook_details(state: Any, rows: Sequence[Any]) -> WebhookDetails:
    """A webhook with its latest messages."""
    messages = [to_struct(row, MessageAnswer, next_attempt_at=row["due_at"]) for row in rows]
    return WebhookDetails(**state_fields(state), messages=messages)
