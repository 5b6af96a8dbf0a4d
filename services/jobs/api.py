"""Routes of the jobs service."""

from datetime import UTC, datetime
from typing import Annotated, Any
from uuid import uuid4

import msgspec
from litestar import Controller, Request, Response, get, post
from litestar.di import NamedDependency
from litestar.params import FromPath, FromQuery, JSONBody, Parameter

from services.jobs.answers import action_answer, job_answer, read_statuses, submit_answer
from services.jobs.domain.submission import read_submission
from services.jobs.operations import cancel_job, submit_job
from services.jobs.queries import get_job, list_jobs
from services.jobs.resources import Resources
from services.jobs.schemas import ActionAnswer, JobAnswer, JobList, SubmitAnswer, SubmitBody, SubmitRequest
from shared.contracts.auth import Identity
from shared.web.errors import error_responses
from shared.web.idempotency import idempotency_key, replayable

AuthenticatedRequest = Request[Identity, Any, Any]


class JobsController(Controller):
    path = "/v1/jobs"
    tags = ("Job Management",)

    @post(
        "/submit", status_code=200, operation_id="submit_job", summary="Submit a job", dto=SubmitBody,
        return_dto=None, responses=error_responses(400, 409, 422, body=True),
    )  # fmt: skip
    async def submit(
        self, request: AuthenticatedRequest, data: JSONBody[SubmitRequest], resources: NamedDependency[Resources]
    ) -> Response[SubmitAnswer]:
        """Put a job in the line for GPUs."""
        outcome = await submit_job(
            owner=request.user, submission=read_submission(msgspec.structs.asdict(data)), job_id=uuid4(),
            key=await idempotency_key(request), now=datetime.now(UTC), resources=resources,
        )  # fmt: skip
        return replayable(submit_answer(outcome))

    @get("/{job_id:str}", operation_id="get_job", summary="Get a job", responses=error_responses(404, 409))
    async def get_one(
        self, request: AuthenticatedRequest, job_id: FromPath[str], resources: NamedDependency[Resources]
    ) -> JobAnswer:
        """One of your jobs, by its id or a unique beginning of it of at least 8 characters."""
        job = await get_job(user_id=request.user.user_id, job_id=job_id, resources=resources)
        return job_answer(job, datetime.now(UTC), resources.settings)

    @get(operation_id="list_jobs", summary="List your jobs", responses=error_responses(400))
    async def list_own(
        self,
        request: AuthenticatedRequest,
        resources: NamedDependency[Resources],
        status: FromQuery[str | None] = None,
        limit: FromQuery[Annotated[int, Parameter(ge=1, le=500)]] = 50,
        offset: FromQuery[Annotated[int, Parameter(ge=0, le=2**31)]] = 0,
    ) -> JobList:
        """Your jobs, newest first, optionally of some statuses only (separated by commas)."""
        page = await list_jobs(
            user_id=request.user.user_id, statuses=read_statuses(status), limit=limit, offset=offset,
            resources=resources,
        )  # fmt: skip
        now = datetime.now(UTC)
        jobs = [job_answer(job, now, resources.settings) for job in page.jobs]
        return JobList(jobs=jobs, total=page.total, limit=limit, offset=offset)

    @post(
        "/{job_id:str}/cancel", status_code=200, operation_id="cancel_job", summary="Cancel a job",
        responses=error_responses(404, 409, 422),
    )  # fmt: skip
    async def cancel(
        self, request: AuthenticatedRequest, job_id: FromPath[str], resources: NamedDependency[Resources]
    ) -> Response[ActionAnswer]:
        """Cancel a job that has not ended; its status changes to cancelled when its pod is gone."""
        outcome = await cancel_job(
            user_id=request.user.user_id, job_id=job_id, key=await idempotency_key(request),
            now=datetime.now(UTC), resources=resources,
        )  # fmt: skip
        return replayable(action_answer(outcome, "cancel", "Cancellation request submitted"))
