"""The route of a job's log."""

import re
from datetime import datetime, timedelta
from typing import Annotated, Any

import msgspec
from litestar import Controller, Response, get
from litestar.di import NamedDependency
from litestar.params import FromPath, FromQuery, Parameter

from services.jobs.context import Context
from services.jobs.operations.read import get_job
from services.jobs.operations.stream_log import LogReader, LogRequest
from shared.errors import InvalidInput, Problem
from shared.web.authentication import AuthenticatedRequest
from shared.web.errors import error_responses
from shared.web.key_holds import key_hold
from shared.web.streaming import TEXT_RESPONSE, TextStream

MAX_TAIL_LINES = 1_000_000
_SINCE = "Only lines that began since then: an RFC 3339 time, or a number of seconds ago"


class LogsController(Controller):
    path = "/v1/jobs"
    tags = ("Job Management",)

    @get(
        "/{job_id:str}/logs",
        operation_id="get_job_logs",
        summary="Read or follow a job's log",
        responses={200: TEXT_RESPONSE} | error_responses(404, 409, 429),
    )
    async def logs(
        self,
        *,
        request: AuthenticatedRequest,
        job_id: FromPath[str],
        context: NamedDependency[Context],
        log_reader: NamedDependency[LogReader],
        follow: FromQuery[Annotated[bool, Parameter(description="Go on until the job has ended")]] = False,
        tail: FromQuery[
            Annotated[int | None, Parameter(ge=0, le=MAX_TAIL_LINES, description="Only so many last lines")]
        ] = None,
        since: FromQuery[Annotated[str | None, Parameter(description=_SINCE)]] = None,
    ) -> Response[Any]:
        """The output of a job's command; with `follow=true` also everything that it prints until it ends.

        The log is empty until the command prints something. After the job's end the last 1 MB is kept. Where something
        is missing, a line that begins with `[gpudev: ` says so.

        Without `follow` the answer is the log, byte for byte. With `follow` the answer begins at once and sends
        unfinished lines as they come. It is never silent for more than 15 s: while there is no output it sends an
        empty line, or a space within an unfinished line. When your API key ends, the answer ends within 5 s, with a
        line that says so.
        """
        wanted = LogRequest(follow=follow, tail=tail, since=read_since(since, context.clock()))
        job = await get_job(user_id=request.user.user_id, job_id=job_id, context=context)
        return TextStream(await log_reader.open(job, wanted), key_hold(request), kept_alive=follow)


def read_since(text: str | None, now: datetime) -> datetime | None:
    """The moment that `since` means: an RFC 3339 time, or seconds before `now`; None when it is not given.

    Raises:
        InvalidInput: It is neither.
    """
    if text is None:
        return None
    if re.fullmatch(r"[0-9]{1,9}", text):
        return now - timedelta(seconds=int(text))
    try:
        moment: datetime = msgspec.convert(text, Annotated[datetime, msgspec.Meta(tz=True)])
    except msgspec.ValidationError:
        message = "Must be a time such as 2026-01-20T18:30:00Z, or a number of seconds"
        raise InvalidInput([Problem("value_error", ("query", "since"), message)]) from None
    return moment
