"""Routes about a job's entry in the queue, which capacity keeps."""

from litestar import Controller, Response, get, post
from litestar.di import NamedDependency
from litestar.params import FromPath, JSONBody

from services.jobs.context import Context
from services.jobs.operations.prioritise import prioritise_job
from services.jobs.operations.read import explain_job
from services.jobs.schemas.answers import ActionAnswer, ExplainAnswer, action_answer, explain_answer
from services.jobs.schemas.requests import PriorityRequest
from shared.web.authentication import AuthenticatedRequest
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
        self, request: AuthenticatedRequest, job_id: FromPath[str], context: NamedDependency[Context]
    ) -> ExplainAnswer:
        """What one of your jobs is waiting for, when it will probably start, and what would start sooner."""
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
        request: AuthenticatedRequest,
        job_id: FromPath[str],
        data: JSONBody[PriorityRequest],
        context: NamedDependency[Context],
    ) -> Response[ActionAnswer]:
        """For operators: set the priority of any job that has not started, by its full id.

        Other users get 403, whether there is such a job or not.
        """
        outcome = await prioritise_job(
            asker=request.user,
            job_id=job_id,
            priority=data.priority,
            key=await idempotency_key(request),
            now=context.clock(),
            context=context,
        )
        return replayable(action_answer(outcome, "priority", f"Priority set to {data.priority}"))
