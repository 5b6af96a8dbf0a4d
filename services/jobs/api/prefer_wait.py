"""`Prefer: wait`: the answer to a request is held until its outcome shows on the job (RFC 7240)."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeAlias, TypeVar
from uuid import UUID

import msgspec
from litestar import Response
from msgspec.structs import replace

from services.jobs.api.shown_jobs import ShownJobs
from services.jobs.context import Context
from services.jobs.domain.access import find_user
from services.jobs.domain.job import ENDED_STATUSES, WAITING_STATUSES, Job, Phase, UserState
from services.jobs.domain.job_id import IdRange
from services.jobs.operations.read import find_version, known_range
from services.jobs.operations.wait import await_change, await_job
from services.jobs.schemas.answers import ActionAnswer, ActionStatus, SubmitAnswer
from shared.idempotency import Outcome
from shared.web.authentication import AuthenticatedRequest
from shared.web.conditional import ConditionalResponse, if_none_match, is_known
from shared.web.idempotency import replayable
from shared.web.key_holds import while_key_holds
from shared.web.preferences import applied_wait, preferred_wait

AnswerT = TypeVar("AnswerT", bound=msgspec.Struct)
Settle: TypeAlias = Callable[[AnswerT, Job], AnswerT | None]
"""The answer with the outcome that a job shows; None while that is open."""


async def held_answer(
    request: AuthenticatedRequest, outcome: Outcome[AnswerT], settle: Settle[AnswerT], context: Context
) -> Response[AnswerT]:
    """The answer to a request about a job: at once, or, with `Prefer: wait`, when its outcome is known.

    Args:
        request: Whose answer it is.
        outcome: Of the operation; its answer names the job.
        settle: Whether the job shows the outcome.
        context: The service's.

    Raises:
        KeyEnded: The request's key is no longer good.
    """
    answer: Any = outcome.answer
    with _granted_wait(request, context) as seconds:
        if seconds is not None:
            waiting = await_job(answer.job_id, lambda job: settle(answer, job) is not None, seconds, context)
            job = await while_key_holds(request, waiting)
            answer = answer if job is None else settle(answer, job) or answer
        return replayable(Outcome(answer, outcome.replayed), applied_wait(seconds))


async def changed_job(
    request: AuthenticatedRequest, job_id: str, shown_jobs: ShownJobs, context: Context
) -> Response[Any]:
    """A job: at once, or, with `Prefer: wait` and `If-None-Match`, as soon as it is another than the client has.

    Raises:
        JobNotFound: No such job, or someone else's.
        Conflict: Several of the user's jobs begin like this.
        KeyEnded: The request's key is no longer good.
    """
    known, ids, user_id = if_none_match(request), known_range(job_id), request.user.user_id
    job, is_held = None, False

    async def has_changed() -> bool:
        nonlocal job, is_held
        job = await shown_jobs.one(user_id=user_id, ids=ids)
        is_held = is_held or is_known(known, job.tag)
        return not is_known(known, job.tag)

    with _granted_wait(request, context) as seconds:
        if seconds is not None and known is not None:
            # it looks when it listens already: one look is enough to miss nothing
            whole_id = await _whole_id(ids, user_id, context)
            await while_key_holds(request, await_change(whole_id, has_changed, seconds, context))
        job = job or await shown_jobs.one(user_id=user_id, ids=ids)
        return ConditionalResponse(request, job, applied_wait(seconds if is_held else None))


async def _whole_id(ids: IdRange, user_id: int, context: Context) -> UUID:
    first, last = ids
    return first if first == last else (await find_version(user_id=user_id, ids=ids, context=context)).job_id


@contextmanager
def _granted_wait(request: AuthenticatedRequest, context: Context) -> Iterator[int | None]:
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


def left_queue(answer: SubmitAnswer, job: Job) -> SubmitAnswer | None:
    """Of a submission: the job waits no longer."""
    if job.status in WAITING_STATUSES:
        return None
    return replace(answer, status=job.status, status_reason=job.reason)


def is_over(answer: ActionAnswer, job: Job) -> ActionAnswer | None:
    """Of a cancellation: the job has ended."""
    return _succeeded(answer) if job.status in ENDED_STATUSES else None


def is_extended(answer: ActionAnswer, job: Job) -> ActionAnswer | None:
    """Of an extension: it took effect as it was accepted, and is shown."""
    return None if job.unshown_extensions else _succeeded(answer)


def user_is_settled(name: str) -> Settle[ActionAnswer]:
    """Of a request to add a user: their keys open the job, or never will."""

    def settle(answer: ActionAnswer, job: Job) -> ActionAnswer | None:
        user = find_user(job, name)
        if user is not None and user.state is UserState.ADDED:
            return _succeeded(answer)
        if user is not None and user.state is UserState.REFUSED:
            return _refused(answer, f"{user.name} was not added: {user.reason}")
        return _refused_if_over(answer, job)

    return settle


def jupyter_is_settled(*, wanted: bool) -> Settle[ActionAnswer]:
    """Of a request about Jupyter: the pod follows the owner's last wish, or could not."""

    def settle(answer: ActionAnswer, job: Job) -> ActionAnswer | None:
        if job.phase is not Phase.ACTIVE:
            return _refused_if_over(answer, job)
        if job.jupyter_applied < job.jupyter_revision:
            return None
        if job.jupyter_error is None and job.jupyter_enabled is wanted:
            return _succeeded(answer)
        verb = "started" if wanted else "stopped"
        return _refused(answer, f"Jupyter was not {verb}: {job.jupyter_error or 'another request came after'}")

    return settle


def _succeeded(answer: ActionAnswer) -> ActionAnswer:
    return replace(answer, status=ActionStatus.SUCCEEDED)


def _refused(answer: ActionAnswer, text: str) -> ActionAnswer:
    return replace(answer, status=ActionStatus.REFUSED, message=text)


def _refused_if_over(answer: ActionAnswer, job: Job) -> ActionAnswer | None:
    return None if job.phase is Phase.ACTIVE else _refused(answer, "The job has ended")
