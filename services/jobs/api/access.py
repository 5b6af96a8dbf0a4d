"""Routes about access to a running job: SSH keys of users, and Jupyter."""

from litestar import Controller, Response, post
from litestar.di import NamedDependency
from litestar.params import FromPath, JSONBody

from services.jobs.api.prefer_wait import held_answer, jupyter_is_settled, user_is_settled
from services.jobs.context import Context
from services.jobs.operations.access import add_user, switch_jupyter
from services.jobs.schemas.answers import ActionAnswer, action_answer
from services.jobs.schemas.requests import AddUserRequest
from shared.web.authentication import AuthenticatedRequest
from shared.web.errors import error_responses
from shared.web.idempotency import idempotency_key
from shared.web.preferences import PREFER_WAIT
from shared.web.validation import Body


class AccessController(Controller):
    path = "/v1/jobs"
    tags = ("Job Management",)

    @post(
        "/{job_id:str}/users",
        status_code=200,
        operation_id="add_user",
        opt={PREFER_WAIT: True},
        summary="Add a user to a job",
        dto=Body[AddUserRequest],
        return_dto=None,
        responses=error_responses(404, 409, 422, body=True),
    )
    async def add_user(
        self,
        request: AuthenticatedRequest,
        job_id: FromPath[str],
        data: JSONBody[AddUserRequest],
        context: NamedDependency[Context],
    ) -> Response[ActionAnswer]:
        """Give a GitHub user SSH access to an active job, with the public keys of their GitHub account.

        The job then lists the user in `secondary_users`. If the keys could not be put in place, `access_error` says
        why.
        """
        name = data.github_username
        outcome = await add_user(
            user_id=request.user.user_id,
            job_id=job_id,
            name=name,
            key=await idempotency_key(request),
            now=context.clock(),
            context=context,
        )
        answer = action_answer(outcome, "add_user", f"Add user request submitted for GitHub user '{name}'")
        return await held_answer(request, answer, user_is_settled(name), context)

    @post(
        "/{job_id:str}/jupyter/enable",
        status_code=200,
        operation_id="enable_jupyter",
        opt={PREFER_WAIT: True},
        summary="Enable Jupyter",
        responses=error_responses(404, 409, 422),
    )
    async def enable_jupyter(
        self, request: AuthenticatedRequest, job_id: FromPath[str], context: NamedDependency[Context]
    ) -> Response[ActionAnswer]:
        """Start JupyterLab in an active job.

        The job then shows a `jupyter_url` with a new token, or a `jupyter_error` that says why it did not start.
        """
        return await _switch(request, job_id, wanted=True, context=context)

    @post(
        "/{job_id:str}/jupyter/disable",
        status_code=200,
        operation_id="disable_jupyter",
        opt={PREFER_WAIT: True},
        summary="Disable Jupyter",
        responses=error_responses(404, 409, 422),
    )
    async def disable_jupyter(
        self, request: AuthenticatedRequest, job_id: FromPath[str], context: NamedDependency[Context]
    ) -> Response[ActionAnswer]:
        """Stop JupyterLab in an active job. Its token no longer works."""
        return await _switch(request, job_id, wanted=False, context=context)


async def _switch(
    request: AuthenticatedRequest, job_id: str, *, wanted: bool, context: Context
) -> Response[ActionAnswer]:
    outcome = await switch_jupyter(
        user_id=request.user.user_id,
        job_id=job_id,
        wanted=wanted,
        key=await idempotency_key(request),
        now=context.clock(),
        context=context,
    )
    verb = "enable" if wanted else "disable"
    answer = action_answer(outcome, f"{verb}_jupyter", f"Jupyter {verb} request submitted")
    return await held_answer(request, answer, jupyter_is_settled(wanted=wanted), context)
