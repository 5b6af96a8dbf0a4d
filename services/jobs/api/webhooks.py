"""Routes of webhooks."""

from litestar import Controller, Response, delete, get, post
from litestar.di import NamedDependency
from litestar.params import FromPath, JSONBody

from services.jobs.adapters.webhooks import WebhookSender
from services.jobs.context import Context
from services.jobs.operations.webhooks import create_webhook, delete_webhook, get_webhook, list_webhooks, send_test
from services.jobs.schemas.webhooks import (
    NewWebhookAnswer,
    WebhookActionAnswer,
    WebhookBody,
    WebhookDetails,
    WebhookList,
    WebhookRequest,
    WebhookStateAnswer,
    action_answer,
    new_webhook_answer,
    state_fields,
    webhook_details,
)
from shared.web.authentication import AuthenticatedRequest
from shared.web.errors import error_responses
from shared.web.idempotency import idempotency_key, replayable


class WebhooksController(Controller):
    path = "/v1/webhooks"
    tags = ("Events",)

    @post(
        status_code=200,
        operation_id="create_webhook",
        summary="Have events sent to a URL",
        dto=WebhookBody,
        return_dto=None,
        responses=error_responses(404, 409, 422, body=True),
    )
    async def create(
        self,
        request: AuthenticatedRequest,
        data: JSONBody[WebhookRequest],
        context: NamedDependency[Context],
        webhook_sender: NamedDependency[WebhookSender],
    ) -> Response[NewWebhookAnswer]:
        """Messages are signed as Standard Webhooks says, with the `secret` of this answer, which is shown this once.

        A message that is not answered with 2xx within 10 s is sent again, after longer and longer pauses, for a day;
        then it is parked. It may come twice: with the same `webhook-id`. Messages about one job or disk come in order.
        """
        outcome = await create_webhook(
            user_id=request.user.user_id,
            url=data.url,
            types=data.types,
            job_id=data.job_id,
            wanted=data.format,
            key=await idempotency_key(request),
            now=context.clock(),
            context=context,
            sender=webhook_sender,
        )
        return replayable(new_webhook_answer(outcome))

    @get(operation_id="list_webhooks", summary="List your webhooks", responses=error_responses())
    async def list_own(self, request: AuthenticatedRequest, context: NamedDependency[Context]) -> WebhookList:
        """Your webhooks and how they do, oldest first."""
        states = await list_webhooks(user_id=request.user.user_id, context=context)
        return WebhookList([WebhookStateAnswer(**state_fields(state)) for state in states])

    @get("/{webhook_id:str}", operation_id="get_webhook", summary="Get a webhook", responses=error_responses(404))
    async def get_one(
        self, request: AuthenticatedRequest, webhook_id: FromPath[str], context: NamedDependency[Context]
    ) -> WebhookDetails:
        """One of your webhooks with its latest messages; what was given up comes first."""
        state, messages = await get_webhook(user_id=request.user.user_id, webhook_id=webhook_id, context=context)
        return webhook_details(state, messages)

    @post(
        "/{webhook_id:str}/test",
        status_code=200,
        operation_id="test_webhook",
        summary="Send a webhook a message to try it",
        responses=error_responses(404, 409, 422),
    )
    async def test(
        self, request: AuthenticatedRequest, webhook_id: FromPath[str], context: NamedDependency[Context]
    ) -> Response[WebhookActionAnswer]:
        """What came of it shows on the webhook within a second or two, under the `message_id` of this answer."""
        outcome = await send_test(
            user_id=request.user.user_id,
            webhook_id=webhook_id,
            key=await idempotency_key(request),
            now=context.clock(),
            context=context,
        )
        return replayable(action_answer(outcome, "Test message submitted"))

    @delete(
        "/{webhook_id:str}",
        status_code=200,
        operation_id="delete_webhook",
        summary="Delete a webhook",
        responses=error_responses(404, 409, 422),
    )
    async def remove(
        self, request: AuthenticatedRequest, webhook_id: FromPath[str], context: NamedDependency[Context]
    ) -> Response[WebhookActionAnswer]:
        """What it was still to be sent goes with it."""
        outcome = await delete_webhook(
            user_id=request.user.user_id,
            webhook_id=webhook_id,
            key=await idempotency_key(request),
            now=context.clock(),
            context=context,
        )
        return replayable(action_answer(outcome, "Webhook deleted"))
