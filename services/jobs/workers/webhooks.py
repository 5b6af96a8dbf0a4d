"""Sends webhooks their messages: one worker a webhook, those about one job or disk in their order."""

from collections.abc import Sequence
from datetime import timedelta
from uuid import UUID

import msgspec
import structlog
from prometheus_client import Counter

from services.jobs import storage
from services.jobs.adapters.webhooks import SEND_SECONDS, WebhookSender
from services.jobs.context import Context
from services.jobs.domain.webhook import Delivery, Target, Webhook, WebhookFormat, signed_headers, slack_body
from services.jobs.operations.webhook_messages import next_message, note_attempt, purge_messages
from services.jobs.operations.webhooks import unseal_target
from shared.background import Loop
from shared.database import to_struct
from shared.leased_worker import Budget, LeasedWorker

log = structlog.get_logger(__name__)

_AT_ONCE = 32
_PASS_SECONDS = 30.0
_PURGE_SECONDS = 600.0
_NOW = timedelta(0)
_LATER = timedelta(seconds=10)
_sent = Counter("gpudev_webhook_messages", "Attempts to send messages to webhooks", ["outcome"])


class Claimed(msgspec.Struct, frozen=True):
    webhook: Webhook
    worker: UUID


class WebhookDeliveries:
    """Webhooks that have messages, as rows of a leased worker.

    Args:
        context: The service's.
        sender: Sends a message.
    """

    def __init__(self, context: Context, sender: WebhookSender) -> None:
        self._context = context
        self._sender = sender
        self.worker = LeasedWorker("webhooks", self, at_once=_AT_ONCE, budget_seconds=_PASS_SECONDS)
        self.retention = Loop(
            "webhook_retention", self._purge, period_seconds=_PURGE_SECONDS, stale_seconds=3 * _PURGE_SECONDS
        )

    async def claim(self, worker: UUID, lease: timedelta, limit: int) -> Sequence[Claimed]:
        """Webhooks that have a message that is due."""
        rows = await self._context.database.fetch_all(
            storage.webhooks.CLAIM, now=self._context.clock(), lease=lease, worker=worker, limit=limit
        )
        return [Claimed(to_struct(row, Webhook), worker) for row in rows]

    async def renew(self, row: Claimed, worker: UUID, lease: timedelta) -> bool:
        """Hold the webhook longer."""
        held = await self._context.database.fetch_value(
            storage.webhooks.RENEW, webhook_id=row.webhook.id, worker=worker, lease=lease
        )
        return held is not None

    async def work(self, row: Claimed, budget: Budget) -> None:
        """Send what is due, as much as there is time for."""
        target = unseal_target(row.webhook, self._context)
        while budget.left_seconds > SEND_SECONDS + 1:
            delivery = await next_message(webhook=row.webhook, now=self._context.clock(), context=self._context)
            if delivery is None or not await self._send(row, target, delivery):
                return

    async def give_back(self, row: Claimed, worker: UUID, result: None) -> None:  # noqa: ARG002 - a pass has none
        """Anybody may take it up."""
        await self._finish(row, worker, _NOW)

    async def retry(self, row: Claimed, worker: UUID) -> None:
        """Nobody takes it up for a while."""
        await self._finish(row, worker, _LATER)

    async def hand_over(self, row: Claimed, worker: UUID) -> None:
        """Anybody may take it up."""
        await self._finish(row, worker, _NOW)

    async def _finish(self, row: Claimed, worker: UUID, lease: timedelta) -> None:
        await self._context.database.execute(
            storage.webhooks.FINISH, webhook_id=row.webhook.id, worker=worker, lease=lease
        )

    async def _send(self, row: Claimed, target: Target, delivery: Delivery) -> bool:
        """False: the webhook is not ours any more."""
        slack = row.webhook.format is WebhookFormat.SLACK
        body = slack_body(delivery) if slack else delivery.body
        headers = signed_headers(delivery, target.secret, body, self._context.clock())
        attempt = await self._sender.send(target.url, {"Content-Type": "application/json", **headers}, body)
        _sent.labels("delivered" if attempt.error is None else "failed").inc()
        if attempt.error is not None:
            # never the URL: those of Slack are secrets
            log.info("webhook_not_delivered", webhook_id=str(row.webhook.id), error=attempt.error)
        return await note_attempt(
            webhook=row.webhook,
            delivery=delivery,
            attempt=attempt,
            worker=row.worker,
            now=self._context.clock(),
            context=self._context,
        )

    async def _purge(self) -> bool:
        return await purge_messages(now=self._context.clock(), context=self._context)
