"""Routes about a job's place in the queue; capacity knows it, and is asked over NATS."""

from datetime import UTC, datetime
from typing import Annotated, Any
from uuid import UUID

import msgspec
from litestar import Controller, Request, Response, get, post
from litestar.di import NamedDependency
from litestar.params import FromPath, JSONBody
from msgspec import Meta

from services.jobs.answers import action_answer
from services.jobs.priority import prioritise_job
from services.jobs.queries import get_job
from services.jobs.resources import Resources
from services.jobs.schemas import ActionAnswer
from shared.contracts.auth import Identity
from shared.contracts.capacity import EXPLAIN_SUBJECT, ExplainRequest, Explanation
from shared.contracts.jobs import JobStatus
from shared.messaging import call_rpc
from shared.web.errors import error_responses
from shared.web.idempotency import idempotency_key, replayable
from shared.web.response import Answer
from shared.web.validation import Body

_EXPLAIN_SECONDS = 10.0
MOST_PRIORITY = 1000


class SoonerAnswer(Answer, frozen=True, kw_only=True):
    gpu_count: int
    gpu_type: str
    max_duration_hours: float | None
    """The job would start then with a duration of at most this; null: with the duration that it asked for."""
    estimated_start_time: datetime | None
    """Null: at once."""
    text: str


class ExplainAnswer(Answer, frozen=True, kw_only=True):
    job_id: UUID
    status: JobStatus
    waiting: bool
    """False: the job is not in the queue; the fields below are then null, 0 or empty."""
    reason: str | None
    """What it waits for."""
    queue_position: int | None
    """1 is the head of the queue of its GPU type."""
    jobs_ahead: int
    gpus_ahead: int
    """GPUs that the jobs ahead are waiting for."""
    priority: int
    estimated_start_time: datetime | None
    """The median: one in two jobs starts before it. Null when it cannot be estimated."""
    estimated_start_time_p90: datetime | None
    """Nine in ten jobs start before it. Null when it cannot be estimated."""
    would_start_sooner: list[SoonerAnswer]


class PriorityRequest(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    priority: Annotated[
        int,
        Meta(
            ge=-MOST_PRIORITY,
            le=MOST_PRIORITY,
            description="Jobs with a higher priority go first; the default is 0",
            examples=[10],
        ),
    ]


class QueueController(Controller):
    path = "/v1/jobs"
    tags = ("Job Management",)

    @get(
        "/{job_id:str}/explain", operation_id="explain_job", summary="Explain why a job waits",
        responses=error_responses(404, 409, 503),
    )  # fmt: skip
    async def explain(
        self, request: Request[Identity, Any, Any], job_id: FromPath[str], resources: NamedDependency[Resources]
    ) -> ExplainAnswer:
        """What one of your jobs waits for, when it will start, and what would start sooner."""
        job = await get_job(user_id=request.user.user_id, job_id=job_id, resources=resources)
        explanation = await call_rpc(
            resources.broker, EXPLAIN_SUBJECT, ExplainRequest(job.id), Explanation, timeout_seconds=_EXPLAIN_SECONDS
        )
        return _explain_answer(job.id, job.status, explanation)

    @post(
        "/{job_id:str}/priority", status_code=200, operation_id="prioritise_job", summary="Set a job's priority",
        dto=Body[PriorityRequest], return_dto=None, responses=error_responses(403, 404, 409, 422, body=True),
    )  # fmt: skip
    async def prioritise(
        self,
        request: Request[Identity, Any, Any],
        job_id: FromPath[str],
        data: JSONBody[PriorityRequest],
        resources: NamedDependency[Resources],
    ) -> Response[ActionAnswer]:
        """For operators: set the priority of any waiting job, by its full id. Other users get 403, whatever the id."""
        outcome = await prioritise_job(
            asker=request.user, job_id=job_id, priority=data.priority, key=await idempotency_key(request),
            now=datetime.now(UTC), resources=resources,
        )  # fmt: skip
        return replayable(action_answer(outcome, "priority", f"Priority set to {data.priority}"))


def _explain_answer(job_id: UUID, status: JobStatus, found: Explanation) -> ExplainAnswer:
    return ExplainAnswer(
        job_id=job_id,
        status=status,
        waiting=found.waiting,
        reason=found.reason,
        queue_position=found.position,
        jobs_ahead=found.jobs_ahead,
        gpus_ahead=found.gpus_ahead,
        priority=found.priority,
        estimated_start_time=found.estimated_start_at,
        estimated_start_time_p90=found.estimated_start_p90_at,
        would_start_sooner=[
            SoonerAnswer(
                gpu_count=one.gpu_count,
                gpu_type=one.gpu_type,
                max_duration_hours=None if one.max_duration_seconds is None else one.max_duration_seconds / 3600,
                estimated_start_time=one.start_at,
                text=one.text,
            )
            for one in found.sooner
        ],
    )
