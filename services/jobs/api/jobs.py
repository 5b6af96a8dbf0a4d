"""Routes of a job's life: submit, read, cancel, extend."""

from typing import Annotated
from uuid import uuid4

import msgspec
from litestar import Controller, Response, get, post
from litestar.di import NamedDependency
from litestar.params import FromPath, FromQuery, JSONBody, Parameter

from services.jobs.api.list_query import MOST_LIMIT, MOST_OFFSET, plain_list_query, read_statuses
from services.jobs.api.prefer_wait import changed_job, held_answer, is_extended, is_over, left_queue
from services.jobs.api.shown_jobs import ShownJobs
from services.jobs.context import Context
from services.jobs.domain.job_id import IdRange, id_range
from services.jobs.domain.job_list import JobQuery
from services.jobs.domain.submission import read_submission
from services.jobs.operations.cancel import cancel_job
from services.jobs.operations.extend import extend_job
from services.jobs.operations.read import job_history, list_jobs_of_others
from services.jobs.operations.submit import submit_job
from services.jobs.operations.submit_batch import submit_batch
from services.jobs.schemas.answers import (
    ActionAnswer,
    JobAnswer,
    JobHistory,
    JobList,
    SubmitAnswer,
    SubmitBatchAnswer,
    action_answer,
    history_answer,
    others_jobs,
    submit_answer,
    submit_batch_answer,
)
from services.jobs.schemas.requests import (
    ExtendRequest,
    SubmitBatchBody,
    SubmitBatchRequest,
    SubmitBody,
    SubmitRequest,
    read_request,
)
from shared.contracts.auth import Identity
from shared.errors import InvalidInput
from shared.idempotency import IdempotencyKey, Outcome
from shared.web.authentication import AuthenticatedRequest
from shared.web.body import LARGE_BODY_BYTES
from shared.web.conditional import ConditionalResponse, Encoded, conditional_responses, encoded
from shared.web.errors import error_responses
from shared.web.fast_routes import FastRead, FastRoute, FastWrite
from shared.web.idempotency import idempotency_key, replayable
from shared.web.preferences import PREFER_WAIT, preferred_wait
from shared.web.validation import Body

_PATH = "/v1/jobs"
_SUBMIT = "submit_job"
_LIMIT = "Jobs in the answer, at most"
_OFFSET = "Jobs to skip, newest first"
_USER = "For operators: the jobs of the user of this name, or `*` for everybody's"
_STATUSES = "Only jobs with this status, or with one of several, separated by commas"


class JobsController(Controller):
    path = _PATH
    tags = ("Job Management",)

    @post(
        "/submit",
        status_code=200,
        operation_id=_SUBMIT,
        opt={PREFER_WAIT: True},
        summary="Submit a job",
        dto=SubmitBody,
        return_dto=None,
        responses=error_responses(409, 422, body=True),
        request_max_body_size=LARGE_BODY_BYTES,
    )
    async def submit(
        self, request: AuthenticatedRequest, data: JSONBody[SubmitRequest], context: NamedDependency[Context]
    ) -> Response[SubmitAnswer]:
        """Submit a job. It is queued for GPUs, and answered at once with its id.

        With `Prefer: wait=10` the answer is held until the job has left the queue, 30 s at most.
        """
        outcome = await _submit(request.user, data, await idempotency_key(request), context)
        return await held_answer(request, outcome, left_queue, context)

    @post(
        "/batch",
        status_code=200,
        operation_id="submit_jobs",
        summary="Submit several jobs at once",
        dto=SubmitBatchBody,
        return_dto=None,
        responses=error_responses(409, 422, body=True),
        request_max_body_size=LARGE_BODY_BYTES,
    )
    async def submit_batch(
        self, request: AuthenticatedRequest, data: JSONBody[SubmitBatchRequest], context: NamedDependency[Context]
    ) -> Response[SubmitBatchAnswer]:
        """Submit up to 500 jobs, all of them or none. They are queued in their order.

        Each entry is what `POST /v1/jobs/submit` takes. What is wrong with one names its index, counted from 0, and
        then none is accepted. An `Idempotency-Key` is that of the whole batch.
        """
        outcome = await submit_batch(
            owner=request.user,
            submissions=[read_submission(msgspec.structs.asdict(one)) for one in data.jobs],
            key=await idempotency_key(request),
            now=context.clock(),
            context=context,
        )
        return replayable(submit_batch_answer(outcome))

    @get(
        "/{job_id:str}",
        operation_id="get_job",
        opt={PREFER_WAIT: True},
        summary="Get a job",
        responses=conditional_responses(404, 409),
    )
    async def get_one(
        self,
        request: AuthenticatedRequest,
        job_id: FromPath[str],
        context: NamedDependency[Context],
        shown_jobs: NamedDependency[ShownJobs],
    ) -> Response[JobAnswer]:
        """One of your jobs, by its id or a unique prefix of the id of at least 8 characters.

        With the `ETag` of an earlier answer in `If-None-Match` it is 304, without a body, while nothing has changed.
        With `Prefer: wait=10` as well, the answer is held until something has, 30 s at most.
        """
        return await changed_job(request, job_id, shown_jobs, context)

    @get(operation_id="list_jobs", summary="List your jobs", responses=conditional_responses(403, 404))
    async def list_own(
        self,
        *,
        request: AuthenticatedRequest,
        context: NamedDependency[Context],
        shown_jobs: NamedDependency[ShownJobs],
        status: FromQuery[Annotated[str | None, Parameter(description=_STATUSES)]] = None,
        limit: FromQuery[
            Annotated[int, Parameter(ge=1, le=MOST_LIMIT, description="Jobs in the answer, at most")]
        ] = 50,
        offset: FromQuery[
            Annotated[int, Parameter(ge=0, le=MOST_OFFSET, description="Jobs to skip, newest first")]
        ] = 0,
        user: FromQuery[Annotated[str | None, Parameter(description=_USER, max_length=64)]] = None,
    ) -> Response[JobList]:
        """Your jobs, newest first. Operators may ask for others', without what would let them in.

        With the `ETag` of an earlier answer in `If-None-Match` it is 304, without a body, while the page is the same.
        """
        query = JobQuery(statuses=read_statuses(status), limit=limit, offset=offset)
        if user is not None:
            jobs, total = await list_jobs_of_others(asker=request.user, whose=user, query=query, context=context)
            return ConditionalResponse(
                request, encoded(others_jobs(jobs, total, query, context.clock(), context.settings))
            )
        return ConditionalResponse(request, await shown_jobs.page(user_id=request.user.user_id, query=query))

    @post(
        "/{job_id:str}/cancel",
        status_code=200,
        operation_id="cancel_job",
        opt={PREFER_WAIT: True},
        summary="Cancel a job",
        responses=error_responses(404, 409, 422),
    )
    async def cancel(
        self,
        request: AuthenticatedRequest,
        job_id: FromPath[str],
        context: NamedDependency[Context],
        reason: FromQuery[
            Annotated[str | None, Parameter(max_length=200, description="Shown in the job's `status_reason`")]
        ] = None,
    ) -> Response[ActionAnswer]:
        """Cancel a job that has not ended. Its status becomes `cancelled` when its pod is gone.

        With `Prefer: wait=10` the answer is held until then, 30 s at most. Operators may cancel any user's job, by its
        full id.
        """
        outcome = await cancel_job(
            user_id=request.user.user_id,
            job_id=job_id,
            key=await idempotency_key(request),
            now=context.clock(),
            context=context,
            is_operator=request.user.is_operator,
            reason=reason,
        )
        answer = action_answer(outcome, "cancel", "Cancellation request submitted")
        return await held_answer(request, answer, is_over, context)

    @post(
        "/{job_id:str}/extend",
        status_code=200,
        operation_id="extend_job",
        opt={PREFER_WAIT: True},
        summary="Extend a job",
        dto=Body[ExtendRequest],
        return_dto=None,
        responses=error_responses(404, 409, 422, body=True),
    )
    async def extend(
        self,
        request: AuthenticatedRequest,
        job_id: FromPath[str],
        data: JSONBody[ExtendRequest],
        context: NamedDependency[Context],
    ) -> Response[ActionAnswer]:
        """Give an active job more time. The maximum duration counts from the job's start, extensions included.

        The extension has taken effect with this answer. The job's `expires_at` shows it three seconds later, or at once
        with `Prefer: wait=10`.
        """
        outcome = await extend_job(
            user_id=request.user.user_id,
            job_id=job_id,
            seconds=max(1, round(data.extension_hours * 3600)),
            shown_at_once=bool(preferred_wait(request)),
            key=await idempotency_key(request),
            now=context.clock(),
            context=context,
        )
        text = f"Extension request submitted for {_hours_text(data.extension_hours)} hours"
        return await held_answer(request, action_answer(outcome, "extend", text), is_extended, context)

    @get(
        "/{job_id:str}/history",
        operation_id="get_job_history",
        summary="Get a job's history",
        responses=error_responses(404, 409),
    )
    async def history(
        self, request: AuthenticatedRequest, job_id: FromPath[str], context: NamedDependency[Context]
    ) -> JobHistory:
        """Every status that one of your jobs has had, with its time and reason, oldest first."""
        job, rows = await job_history(user_id=request.user.user_id, job_id=job_id, context=context)
        return history_answer(job, rows)


def _hours_text(hours: float) -> str:
    """As in JSON: 2 and not 2.0."""
    return str(int(hours)) if hours.is_integer() else str(hours)


async def _submit(
    owner: Identity, request: SubmitRequest, key: IdempotencyKey | None, context: Context
) -> Outcome[SubmitAnswer]:
    outcome = await submit_job(
        owner=owner,
        submission=read_submission(msgspec.structs.asdict(request)),
        job_id=uuid4(),
        key=key,
        now=context.clock(),
        context=context,
    )
    return submit_answer(outcome)


def fast_routes(context: Context, shown_jobs: ShownJobs) -> list[FastRoute]:
    """A job by its whole id or a beginning of it, a page of the list, and a submit."""

    async def read_one(identity: Identity, ids: IdRange) -> Encoded:
        return await shown_jobs.one(user_id=identity.user_id, ids=ids)

    async def read_page(identity: Identity, query: JobQuery) -> Encoded:
        return await shown_jobs.page(user_id=identity.user_id, query=query)

    async def write_submit(
        owner: Identity, request: SubmitRequest, key: IdempotencyKey | None
    ) -> Outcome[SubmitAnswer]:
        return await _submit(owner, request, key, context)

    return [
        FastRead(template=f"{_PATH}/{{job_id}}", match=_asked_job, read=read_one),
        FastRead(template=_PATH, match=_asked_page, read=read_page),
        FastWrite(
            template=f"{_PATH}/submit",
            operation_id=_SUBMIT,
            most_bytes=LARGE_BODY_BYTES,
            decode=read_request,
            write=write_submit,
        ),
    ]


def _asked_job(path: str, query: str) -> IdRange | None:
    head, _, job_id = path.rpartition("/")
    return id_range(job_id) if head == _PATH and not query else None


def _asked_page(path: str, query: str) -> JobQuery | None:
    try:
        return plain_list_query(query) if path == _PATH else None
    except InvalidInput:
        return None
