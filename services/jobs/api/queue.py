"""Routes about a job's place in the queue; capacity knows it, and is asked over NATS."""

from typing import Any

from litestar import Controller, Request, Response, get, post
from litestar.di import NamedDependency
from litestar.params import FromPath, JSONBody

from services.jobs.context import Context
from services.jobs.operations.prioritise import prioritise_job
from services.jobs.operations.read import explain_job
from services.jobs.schemas import ActionAnswer, ExplainAnswer, PriorityRequest, action_answer, explain_answer
from shared.contracts.auth import Identity
from shared.web.errors import error_responses
from shared.web.idempotency import idempotency_key, replayable
from shared.web.validation import Body


class QueueController(Controller):
    path = "/v1/jobs"
    tags = ("Job Management",)

    @get(
        "/{job_id:str}/explain",
        operation_id="explain_job",
        summary="Explain why a job waits",
        responses=error_responses(404, 409, 503),
    )
    async def explain(
        self, request: Request[Identity, Any, Any], job_id: FromPath[str], context: NamedDependency[Context]
    ) -> ExplainAnswer:
        """What one of your jobs waits for, when it will start, and what would start sooner."""
        job, explanation = await explain_job(user_id=request.user.user_id, job_id=job_id, context=context)
        return explain_answer(job.id, job.status, explanation)

    @post(
        "/{job_id:str}/priority",
        status_code=200,
        operation_id="prioritise_job",
        summary="Set a job's priority",
        dto=Body[PriorityRequest],
        return_dto=None,
        responses=error_responses(403, 404, 409, 422, body=True),
    )
    async def prioritise(
        self,
        request: Request[Identity, Any, Any],
        job_id: FromPath[str],
        data: JSONBody[PriorityRequest],
        context: NamedDependency[Context],
    ) -> Response[ActionAnswer]:
        """For operators: set the priority of any waiting job, by its full id. Other users get 403, whatever the id."""
        outcome = await prioritise_job(
            asker=request.user,
            job_id=job_id,
            priority=data.priority,
            key=await idempotency_key(request),
            now=context.clock(),
            context=context,
        )
        return replayable(action_answer(outcome, "priority", f"Priority set to {data.priority}"))
