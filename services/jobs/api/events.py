"""Routes of events as they come."""

from typing import Annotated, Any

from litestar import Controller, Response, get
from litestar.di import NamedDependency
from litestar.params import FromHeader, FromPath, FromQuery, HeaderParameter, Parameter

from services.jobs.domain.event_channels import Topic
from services.jobs.operations.stream_events import EventReader
from shared.errors import InvalidInput, Problem
from shared.web.authentication import AuthenticatedRequest
from shared.web.errors import error_responses
from shared.web.key_holds import key_hold
from shared.web.streaming import EVENT_RESPONSE, EventStream

_TOPICS = "Which events: `jobs`, `disks`, `cluster`, separated by commas"
_USER = "For operators: the events of the user of this name, or `*` for everybody's"
_LAST_ID = "Id of the last event that you have: what came after it comes first"
_LastId = FromHeader[Annotated[str | None, HeaderParameter(name="Last-Event-ID", description=_LAST_ID, max_length=64)]]


class EventsController(Controller):
    path = "/v1"
    tags = ("Events",)

    @get(
        "/events",
        operation_id="follow_events",
        summary="Follow events",
        responses={200: EVENT_RESPONSE} | error_responses(404, 429),
    )
    async def follow(
        self,
        *,
        request: AuthenticatedRequest,
        event_reader: NamedDependency[EventReader],
        topics: FromQuery[Annotated[str, Parameter(description=_TOPICS, max_length=100)]] = "jobs,disks",
        user: FromQuery[Annotated[str | None, Parameter(description=_USER, max_length=64)]] = None,
        last_event_id: _LastId = None,
    ) -> Response[Any]:
        """Your events as they come, as server-sent events: each is a CloudEvent, as it is on NATS.

        After a break send the last id as `Last-Event-ID`, as browsers do by themselves: nothing is left out, and the
        events of one job or disk come in their order. An event may come twice, with the same `id` in it. The event
        `resync` says that what you ask for is not kept any more (7 days are): read the state again. The event `end`
        says why the answer ends, as when your API key does. There is a sign of life every 15 s.
        """
        wanted = read_topics(topics)
        return EventStream(
            await event_reader.of_user(request.user, wanted, whose=user, last_id=last_event_id), key_hold(request)
        )

    @get(
        "/jobs/{job_id:str}/events",
        operation_id="follow_job_events",
        summary="Follow a job's events",
        responses={200: EVENT_RESPONSE} | error_responses(404, 409, 429),
    )
    async def follow_job(
        self,
        *,
        request: AuthenticatedRequest,
        job_id: FromPath[str],
        event_reader: NamedDependency[EventReader],
        last_event_id: _LastId = None,
    ) -> Response[Any]:
        """The events of one of your jobs, from the first that is kept, then as they come: see `GET /v1/events`.

        The answer does not end with the job. Operators may follow any user's job, by its full id.
        """
        events = await event_reader.of_job(request.user, job_id, last_id=last_event_id)
        return EventStream(events, key_hold(request))


def read_topics(text: str) -> list[Topic]:
    """Topics from a comma-separated list.

    Raises:
        InvalidInput: One is none, or there is none.
    """
    names = [name.strip() for name in text.split(",") if name.strip()]
    if not names or set(names) - set(Topic):
        message = f"Must be some of {', '.join(Topic)}"
        raise InvalidInput([Problem("literal_error", ("query", "topics"), message)])
    return [Topic(name) for name in dict.fromkeys(names)]
