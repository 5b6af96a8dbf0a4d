"""Routes of the jobs service."""

from datetime import UTC, datetime
from typing import Annotated, Any
from uuid import uuid4

import msgspec
from litestar import Controller, Request, Response, get, post
from litestar.di import NamedDependency
from litestar.params import FromPath, FromQuery, JSONBody, Parameter

from services.jobs.actions import add_user, extend_job, switch_jupyter
from services.jobs.answers import (
    action_answer,
    history_answer,
    hours_text,
    job_answer,
    read_since,
    read_statuses,
    submit_answer,
)
from services.jobs.domain.submission import read_submission
from services.jobs.logs import LogReader, LogRequest
from services.jobs.operations import cancel_job, submit_job
from services.jobs.queries import get_job, job_history, list_jobs
from services.jobs.resources import Resources
from services.jobs.schemas import (
    ActionAnswer,
    AddUserRequest,
    ExtendRequest,
    JobAnswer,
    JobHistory,
    JobList,
    SubmitAnswer,
    SubmitBody,
    SubmitRequest,
)
from services.jobs.waiting import (
    held_answer,
    held_submission,
    until_extended,
    until_jupyter_is,
    until_over,
    until_user_is,
)
from shared.contracts.auth import Identity
from shared.web.body import LARGE_BODY_BYTES
from shared.web.errors import error_responses
from shared.web.idempotency import idempotency_key
from shared.web.lasting import key_hold
from shared.web.preferences import PREFER_WAIT, preferred_wait
from shared.web.streaming import TEXT_RESPONSE, TextStream
from shared.web.validation import Body

AuthenticatedRequest = Request[Identity, Any, Any]
MAX_TAIL_LINES = 1_000_000


class JobsController(Controller):
    path = "/v1/jobs"
    tags = ("Job Management",)

    @post(
        "/submit", status_code=200, operation_id="submit_job", opt={PREFER_WAIT: True}, summary="Submit a job",
        dto=SubmitBody, return_dto=None, responses=error_responses(409, 422, body=True),
        request_max_body_size=LARGE_BODY_BYTES,
    )  # fmt: skip
    async def submit(
        self, request: AuthenticatedRequest, data: JSONBody[SubmitRequest], resources: NamedDependency[Resources]
    ) -> Response[SubmitAnswer]:
        """Queue a job for GPUs. `Prefer: wait=10` holds the answer until the job leaves the queue, 30 s at most."""
        outcome = await submit_job(
            owner=request.user, submission=read_submission(msgspec.structs.asdict(data)), job_id=uuid4(),
            key=await idempotency_key(request), now=datetime.now(UTC), resources=resources,
        )  # fmt: skip
        return await held_submission(request, submit_answer(outcome), resources)

    @get("/{job_id:str}", operation_id="get_job", summary="Get a job", responses=error_responses(404, 409))
    async def get_one(
        self, request: AuthenticatedRequest, job_id: FromPath[str], resources: NamedDependency[Resources]
    ) -> JobAnswer:
        """One of your jobs, by its id or by a unique prefix of the id of at least 8 characters."""
        job = await get_job(user_id=request.user.user_id, job_id=job_id, resources=resources)
        return job_answer(job, datetime.now(UTC), resources)

    @get(operation_id="list_jobs", summary="List your jobs", responses=error_responses())
    async def list_own(
        self,
        request: AuthenticatedRequest,
        resources: NamedDependency[Resources],
        status: FromQuery[str | None] = None,
        limit: FromQuery[Annotated[int, Parameter(ge=1, le=500)]] = 50,
        offset: FromQuery[Annotated[int, Parameter(ge=0, le=2**31)]] = 0,
    ) -> JobList:
        """Your jobs, newest first. `status` selects one or more statuses, separated by commas."""
        page = await list_jobs(
            user_id=request.user.user_id, statuses=read_statuses(status), limit=limit, offset=offset,
            resources=resources,
        )  # fmt: skip
        now = datetime.now(UTC)
        jobs = [job_answer(job, now, resources) for job in page.jobs]
        return JobList(jobs=jobs, total=page.total, limit=limit, offset=offset)

    @post(
        "/{job_id:str}/cancel", status_code=200, operation_id="cancel_job",
        opt={PREFER_WAIT: True}, summary="Cancel a job",
        responses=error_responses(404, 409, 422),
    )  # fmt: skip
    async def cancel(
        self,
        request: AuthenticatedRequest,
        job_id: FromPath[str],
        resources: NamedDependency[Resources],
        reason: FromQuery[Annotated[str | None, Parameter(max_length=200)]] = None,
    ) -> Response[ActionAnswer]:
        """Cancel a job that has not ended. Its status becomes `cancelled` when its pod is gone.

        With `Prefer: wait=10` the answer is held until then, 30 s at most. `reason` is shown in the job's
        `status_reason`. Operators may cancel any user's job, by its full id.
        """
        outcome = await cancel_job(
            user_id=request.user.user_id,
            job_id=job_id,
            key=await idempotency_key(request),
            now=datetime.now(UTC),
            resources=resources,
            is_operator=request.user.is_operator,
            reason=reason,
        )
        answer = action_answer(outcome, "cancel", "Cancellation request submitted")
        return await held_answer(request, answer, until_over, resources)

    @post(
        "/{job_id:str}/extend", status_code=200, operation_id="extend_job",
        opt={PREFER_WAIT: True}, summary="Extend a job",
        dto=Body[ExtendRequest], return_dto=None, responses=error_responses(404, 409, 422, body=True),
    )  # fmt: skip
    async def extend(
        self,
        request: AuthenticatedRequest,
        job_id: FromPath[str],
        data: JSONBody[ExtendRequest],
        resources: NamedDependency[Resources],
    ) -> Response[ActionAnswer]:
        """Give an active job more time, up to the maximum duration, which counts from the job's start.

        The extension takes effect with this answer. The job's `expires_at` shows it three seconds later, or at once
        with `Prefer: wait=10`.
        """
        outcome = await extend_job(
            user_id=request.user.user_id, job_id=job_id, seconds=max(1, round(data.extension_hours * 3600)),
            shown_at_once=bool(preferred_wait(request)), key=await idempotency_key(request), now=datetime.now(UTC),
            resources=resources,
        )  # fmt: skip
        text = f"Extension request submitted for {hours_text(data.extension_hours)} hours"
        return await held_answer(request, action_answer(outcome, "extend", text), until_extended, resources)

    @get(
        "/{job_id:str}/history", operation_id="get_job_history", summary="Get a job's history",
        responses=error_responses(404, 409),
    )  # fmt: skip
    async def history(
        self, request: AuthenticatedRequest, job_id: FromPath[str], resources: NamedDependency[Resources]
    ) -> JobHistory:
        """The statuses that one of your jobs has had, with times and reasons, oldest first."""
        job, rows = await job_history(user_id=request.user.user_id, job_id=job_id, resources=resources)
        return history_answer(job, rows)

    @post(
        "/{job_id:str}/users", status_code=200, operation_id="add_user",
        opt={PREFER_WAIT: True}, summary="Add a user to a job",
        dto=Body[AddUserRequest], return_dto=None, responses=error_responses(404, 409, 422, body=True),
    )  # fmt: skip
    async def add_user(
        self,
        request: AuthenticatedRequest,
        job_id: FromPath[str],
        data: JSONBody[AddUserRequest],
        resources: NamedDependency[Resources],
    ) -> Response[ActionAnswer]:
        """Give a GitHub user SSH access to an active job, with the public keys of their GitHub account.

        The job then lists them in `secondary_users`; otherwise its `access_error` says why not.
        """
        name = data.github_username
        outcome = await add_user(
            user_id=request.user.user_id, job_id=job_id, name=name, key=await idempotency_key(request),
            now=datetime.now(UTC), resources=resources,
        )  # fmt: skip
        answer = action_answer(outcome, "add_user", f"Add user request submitted for GitHub user '{name}'")
        return await held_answer(request, answer, until_user_is(name), resources)

    @post(
        "/{job_id:str}/jupyter/enable", status_code=200, operation_id="enable_jupyter",
        opt={PREFER_WAIT: True}, summary="Enable Jupyter",
        responses=error_responses(404, 409, 422),
    )  # fmt: skip
    async def enable_jupyter(
        self, request: AuthenticatedRequest, job_id: FromPath[str], resources: NamedDependency[Resources]
    ) -> Response[ActionAnswer]:
        """Start JupyterLab in an active job, which then has a `jupyter_url` with a new token, or a `jupyter_error`."""
        return await _switch(request, job_id, wanted=True, resources=resources)

    @post(
        "/{job_id:str}/jupyter/disable", status_code=200, operation_id="disable_jupyter",
        opt={PREFER_WAIT: True}, summary="Disable Jupyter",
        responses=error_responses(404, 409, 422),
    )  # fmt: skip
    async def disable_jupyter(
        self, request: AuthenticatedRequest, job_id: FromPath[str], resources: NamedDependency[Resources]
    ) -> Response[ActionAnswer]:
        """Stop JupyterLab in an active job. Its token no longer works."""
        return await _switch(request, job_id, wanted=False, resources=resources)

    @get(
        "/{job_id:str}/logs", operation_id="get_job_logs", summary="Read or follow a job's log",
        responses={200: TEXT_RESPONSE} | error_responses(404, 409, 429),
    )  # fmt: skip
    async def logs(
        self,
        *,
        request: AuthenticatedRequest,
        job_id: FromPath[str],
        resources: NamedDependency[Resources],
        log_reader: NamedDependency[LogReader],
        follow: FromQuery[bool] = False,
        tail: FromQuery[Annotated[int | None, Parameter(ge=0, le=MAX_TAIL_LINES)]] = None,
        since: FromQuery[str | None] = None,
    ) -> Response[Any]:
        """The output of a job's command; with `follow=true` also everything that it prints until it ends.

        `tail`: only the last lines. `since`: an RFC 3339 time or a number of seconds ago; lines that began earlier are
        left out. The log is empty until the command prints something. After the job's end the last 1 MB is kept.
        Where something is missing, a line that begins with `[gpudev: ` says so in its place.

        Without `follow` the answer is the log, byte for byte. With `follow` the answer begins at once, sends
        unfinished lines as they come, and is never silent for more than 15 s: while there is no output it sends an
        empty line, or a space within an unfinished line. When your API key ends, so does the answer, within 5 s and
        with a line that says so.
        """
        wanted = LogRequest(follow=follow, tail=tail, since=read_since(since, datetime.now(UTC)))
        job = await get_job(user_id=request.user.user_id, job_id=job_id, resources=resources)
        return TextStream(await log_reader.open(job, wanted), key_hold(request), kept_alive=follow)


async def _switch(
    request: AuthenticatedRequest, job_id: str, *, wanted: bool, resources: Resources
) -> Response[ActionAnswer]:
    outcome = await switch_jupyter(
        user_id=request.user.user_id, job_id=job_id, wanted=wanted, key=await idempotency_key(request),
        now=datetime.now(UTC), resources=resources,
    )  # fmt: skip
    verb = "enable" if wanted else "disable"
    answer = action_answer(outcome, f"{verb}_jupyter", f"Jupyter {verb} request submitted")
    return await held_answer(request, answer, until_jupyter_is(wanted=wanted), resources)
