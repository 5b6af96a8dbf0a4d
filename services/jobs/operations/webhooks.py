"""Webhooks of a user: made, shown, tried and deleted."""

from collections.abc import Sequence
from datetime import datetime
from os import urandom
from typing import Any, TypeVar
from uuid import UUID, uuid4

import msgspec

from services.jobs import storage
from services.jobs.adapters.webhooks import WebhookSender
from services.jobs.context import Context
from services.jobs.domain.webhook import (
    SECRET_BYTES,
    TEST_TYPE,
    Target,
    Webhook,
    WebhookFormat,
    new_secret,
    url_fault,
)
from services.jobs.operations.read import get_job
from shared.contracts.audit import AuditObject
from shared.contracts.events import CloudEvent
from shared.database import Row, Transaction, to_struct
from shared.database.locks import wait_for_user_lock
from shared.errors import Conflict, InvalidInput, NotFound, Problem
from shared.idempotency import IdempotencyKey, Outcome, idempotent

LATEST = 50
_ShownT = TypeVar("_ShownT")
_LOCK = wait_for_user_lock("hook")


class WebhookNotFound(NotFound):
    """Missing, or someone else's: nobody can tell which."""

    def __init__(self) -> None:
        super().__init__("Webhook")


class TooManyWebhooks(Conflict):
    def __init__(self, limit: int) -> None:
        super().__init__(f"You already have {limit} webhooks: delete one of them first")


class NewWebhook(msgspec.Struct, frozen=True, kw_only=True):
    """A webhook, and what only its maker is told."""

    id: UUID
    url: str
    types: list[str]
    job_id: UUID | None
    format: WebhookFormat
    secret: str
    created_at: datetime

    def audited(self) -> list[AuditObject]:
        """What was made; its URL may be a secret."""
        return [AuditObject("webhook", str(self.id))]


class WebhookState(msgspec.Struct, frozen=True, kw_only=True):
    """How a webhook does."""

    webhook: Webhook
    url: str
    pending: int = 0
    parked: int = 0
    delivered_at: datetime | None = None


class Requested(msgspec.Struct, frozen=True):
    """What was asked for will be done."""

    webhook_id: UUID
    message_id: UUID | None = None

    def audited(self) -> list[AuditObject]:
        """What the request was about."""
        return [AuditObject("webhook", str(self.webhook_id))]


async def create_webhook(
    *,
    user_id: int,
    url: str,
    types: Sequence[str],
    job_id: str | None,
    wanted: WebhookFormat,
    key: IdempotencyKey | None,
    now: datetime,
    context: Context,
    sender: WebhookSender,
) -> Outcome[NewWebhook]:
    """A new webhook of a user; its secret is told with this answer and never again.

    Raises:
        InvalidInput: Nothing can or may be sent to the URL.
        JobNotFound: It is to be about a job that is not the user's.
        TooManyWebhooks: The user has as many as they may.
    """
    fault = url_fault(url) or await sender.target_fault(url)
    if fault is not None:
        raise InvalidInput([Problem("value_error", ("body", "url"), f"Nothing is sent there: {fault}")])
    job = None if job_id is None else await get_job(user_id=user_id, job_id=job_id, context=context)

    async def create(transaction: Transaction) -> NewWebhook:
        await transaction.execute(_LOCK, user_id=user_id)
        limit = context.settings.max_webhooks
        if await transaction.fetch_value(storage.webhooks.COUNT_OF_USER, user_id=user_id) >= limit:
            raise TooManyWebhooks(limit)
        made = NewWebhook(
            id=uuid4(),
            url=url,
            types=list(dict.fromkeys(types)),
            job_id=None if job is None else job.id,
            format=wanted,
            secret=new_secret(urandom(SECRET_BYTES)),
            created_at=now,
        )
        await transaction.execute(
            storage.webhooks.INSERT,
            id=made.id,
            user_id=user_id,
            types=made.types,
            job_id=made.job_id,
            format=made.format,
            sealed=seal_target(made.id, Target(made.url, made.secret), context),
            created_at=now,
        )
        return made

    return await idempotent(context, create, key=key, answer_type=NewWebhook, now=now, audit=NewWebhook.audited)


async def list_webhooks(*, user_id: int, context: Context) -> list[WebhookState]:
    """A user's webhooks and how they do, oldest first."""
    rows = await context.database.fetch_all(storage.webhooks.LIST_OWN, user_id=user_id)
    return await _states(rows, context)


async def get_webhook(*, user_id: int, webhook_id: str, context: Context) -> tuple[WebhookState, list[Row]]:
    """One's own webhook, how it does, and its latest messages, those that were given up first.

    Raises:
        WebhookNotFound: No such webhook, or someone else's.
    """
    row = await context.database.fetch_one(storage.webhooks.FIND_OWN, user_id=user_id, webhook_id=_read_id(webhook_id))
    if row is None:
        raise WebhookNotFound
    (state,) = await _states([row], context)
    latest = await context.database.fetch_all(storage.webhooks.LATEST, webhook_id=row["id"], limit=LATEST)
    return state, latest


async def delete_webhook(
    *, user_id: int, webhook_id: str, key: IdempotencyKey | None, now: datetime, context: Context
) -> Outcome[Requested]:
    """Delete one's own webhook, with what it was still to be sent.

    Raises:
        WebhookNotFound: No such webhook, or someone else's.
    """
    found = _read_id(webhook_id)

    async def delete(transaction: Transaction) -> Requested:
        if not await transaction.execute(storage.webhooks.DELETE_OWN, user_id=user_id, webhook_id=found):
            raise WebhookNotFound
        return Requested(found)

    return await idempotent(context, delete, key=key, answer_type=Requested, now=now, audit=Requested.audited)


async def send_test(
    *, user_id: int, webhook_id: str, key: IdempotencyKey | None, now: datetime, context: Context
) -> Outcome[Requested]:
    """Have a message sent that says nothing but that messages arrive.

    Raises:
        WebhookNotFound: No such webhook, or someone else's.
    """
    found = _read_id(webhook_id)

    async def record(transaction: Transaction) -> Requested:
        if await transaction.fetch_one(storage.webhooks.FIND_OWN, user_id=user_id, webhook_id=found) is None:
            raise WebhookNotFound
        event = CloudEvent(
            id=uuid4(),
            source="/gpudev/jobs",
            type=TEST_TYPE,
            subject=str(found),
            time=now,
            sequence=1,
            messageid=0,
            data=msgspec.Raw(msgspec.json.encode({"webhook_id": found})),
        )
        await transaction.execute(
            storage.webhooks.RECORD_TEST,
            webhook_id=found,
            message_id=event.id,
            type="webhooks.test",
            entity=str(event.id),
            body=msgspec.json.encode(event),
            created_at=now,
            due_at=now,
        )
        return Requested(found, event.id)

    return await idempotent(context, record, key=key, answer_type=Requested, now=now, audit=Requested.audited)


def seal_target(webhook_id: UUID, target: Target, context: Context) -> bytes:
    """The target as it may be stored."""
    return context.cipher.encrypt(msgspec.json.encode(target), row=f"webhooks.sealed:{webhook_id}")


def unseal_target(webhook: Webhook, context: Context) -> Target:
    """Where a webhook's messages go, and what they are signed with.

    Raises:
        UndecryptableError: It is not this webhook's, or no key fits.
    """
    return _unseal(webhook, context, Target)


class _Shown(msgspec.Struct, frozen=True):
    """What a webhook's owner is shown of its target; what messages are signed with is for who sends them."""

    url: str


def _unseal(webhook: Webhook, context: Context, wanted: type[_ShownT]) -> _ShownT:
    clear = context.cipher.decrypt(webhook.sealed, row=f"webhooks.sealed:{webhook.id}")
    return msgspec.json.decode(clear, type=wanted)


async def _states(rows: Sequence[Row], context: Context) -> list[WebhookState]:
    webhooks = [to_struct(row, Webhook) for row in rows]
    found: dict[UUID, Any] = {}
    if webhooks:
        ids = [webhook.id for webhook in webhooks]
        for row in await context.database.fetch_all(storage.webhooks.STATES, webhook_ids=ids):
            found[row["webhook_id"]] = {name: row[name] for name in ("pending", "parked", "delivered_at")}
    return [
        WebhookState(webhook=webhook, url=_unseal(webhook, context, _Shown).url, **found.get(webhook.id, {}))
        for webhook in webhooks
    ]


def _read_id(text: str) -> UUID:
    try:
        return UUID(text)
    except ValueError:
        raise WebhookNotFound from None
