"""`Prefer: wait`: an answer is held until the outcome of its request is known."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeAlias

from litestar import Request, Response
from msgspec.structs import replace

from services.jobs.context import Context
from services.jobs.domain.access import find_user
from services.jobs.domain.job import ENDED_STATUSES, WAITING_STATUSES, Job, Phase, UserState
from services.jobs.operations.wait import await_job
from services.jobs.schemas import ActionAnswer, ActionStatus, SubmitAnswer
from shared.contracts.auth import Identity
from shared.idempotency import Outcome
from shared.web.idempotency import replayable
from shared.web.lasting import while_key_holds
from shared.web.preferences import applied_wait, preferred_wait

Settles: TypeAlias = Callable[[Job], tuple[ActionStatus, str | None] | None]
"""What a job says of a request: its outcome, with a text in place of the answer's where there is more to tell; None
when it is still open."""


def until_over(job: Job) -> tuple[ActionStatus, str | None] | None:
    """Of a cancellation: the job has ended."""
    return (ActionStatus.SUCCEEDED, None) if job.status in ENDED_STATUSES else None


def until_extended(job: Job) -> tuple[ActionStatus, str | None] | None:
    """Of an extension: it took effect as it was accepted, and is shown."""
    return None if job.unshown_extensions else (ActionStatus.SUCCEEDED, None)


def until_user_is(name: str) -> Settles:
    """Of a request to add a user: their keys open the job, or never will."""

    def settles(job: Job) -> tuple[ActionStatus, str | None] | None:
        user = find_user(job, name)
        if user is not None and user.state is UserState.ADDED:
            return ActionStatus.SUCCEEDED, None
        if user is not None and user.state is UserState.REFUSED:
            return ActionStatus.REFUSED, f"{user.name} was not added: {user.reason}"
        return _over(job)

    return settles


def until_jupyter_is(*, wanted: bool) -> Settles:
    """Of a request about Jupyter: the pod follows the owner's last wish, or could not."""

    def settles(job: Job) -> tuple[ActionStatus, str | None] | None:
        if job.phase is not Phase.ACTIVE:
            return _over(job)
        if job.jupyter_applied < job.jupyter_revision:
            return None
        if job.jupyter_error is None and job.jupyter_enabled is wanted:
            return ActionStatus.SUCCEEDED, None
        verb = "started" if wanted else "stopped"
        return ActionStatus.REFUSED, f"Jupyter was not {verb}: {job.jupyter_error or 'another request came after'}"

    return settles


def _over(job: Job) -> tuple[ActionStatus, str | None] | None:
    return None if job.phase is Phase.ACTIVE else (ActionStatus.REFUSED, "The job is over")


async def held_answer(
    request: Request[Identity, Any, Any], outcome: Outcome[ActionAnswer], settles: Settles, context: Context
) -> Response[ActionAnswer]:
    """The answer to a request whose outcome shows on the job: at once, or, with `Prefer: wait`, when it is known.

    Raises:
        KeyEnded: The request's key is no longer good.
    """
    answer = outcome.answer
    with _granted_wait(request, context) as seconds:
        if seconds is not None:
            waiting = await_job(answer.job_id, lambda job: settles(job) is not None, seconds, context)
            job = await while_key_holds(request, waiting)
            settled = settles(job) if job is not None else None
            if settled is not None:
                answer = replace(answer, status=settled[0], message=settled[1] or answer.message)
        return replayable(Outcome(answer, outcome.replayed), applied_wait(seconds))


async def held_submission(
    request: Request[Identity, Any, Any], outcome: Outcome[SubmitAnswer], context: Context
) -> Response[SubmitAnswer]:
    """The answer to a submission: at once, or, with `Prefer: wait`, when the job has left the line.

    Raises:
        KeyEnded: The request's key is no longer good.
    """
    answer = outcome.answer
    with _granted_wait(request, context) as seconds:
        if seconds is not None:
            waiting = await_job(answer.job_id, lambda job: job.status not in WAITING_STATUSES, seconds, context)
            job = await while_key_holds(request, waiting)
            answer = replace(answer, status=job.status, status_reason=job.reason) if job is not None else answer
        return replayable(Outcome(answer, outcome.replayed), applied_wait(seconds))


@contextmanager
def _granted_wait(request: Request[Identity, Any, Any], context: Context) -> Iterator[int | None]:
    """The seconds that the request's answer is held; None: not at all, also for users who have too many held."""
    seconds, user_id = preferred_wait(request), request.user.user_id
    held = context.wake_ups.held_answers
    if seconds is None or held[user_id] >= context.settings.max_held_answers:
        yield None
        return
    held[user_id] += 1
    try:
        yield seconds
    finally:
        held[user_id] -= 1
        if not held[user_id]:
            del held[user_id]
