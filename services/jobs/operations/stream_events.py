"""Events as they come: one's own, a job's, and the cluster's, as server-sent events.

What comes after the id of a client's last event is sent in the stream's order, without a gap; the ids are the same from
every replica. An answer keeps no more than a bounded number of events waiting.
"""

from collections import Counter
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from uuid import UUID

import msgspec

from services.jobs import storage
from services.jobs.context import Context
from services.jobs.domain.event_channels import Heard as Addressed
from services.jobs.domain.event_channels import Topic, channels_of, job_channel, read_event, topic_channels
from services.jobs.operations.read import JobNotFound, find_jobs, get_job
from shared.contracts.auth import Identity
from shared.contracts.events import SUBJECT_ROOT, CloudEvent
from shared.errors import NotFound, RateLimited
from shared.messaging import Broker
from shared.messaging.feed import Behind, Feed, FeedEvent, Heard, Missed
from shared.messaging.stream_reader import EVERYTHING, Position, StoredEvent
from shared.operators import check_operator
from shared.web.server_sent import beginning, reason_event, sent_event, sign_of_life

EVERYBODY = "*"
QUIET_SECONDS = 15.0
"""Below the idle time-outs of what stands between."""
_RETRY_AFTER_SECONDS = 10
_RECONNECT_MILLISECONDS = 1000
_MAX_OWNERS = 50_000
_NOT_KEPT = "events before this are not kept any more: read the state again"
_TOO_SLOW = "events came faster than they were taken: ask again, with the id of the last one that you have"


class TooManyStreams(RateLimited):
    def __init__(self, limit: int) -> None:
        text = f"You already follow events {limit} times at the same time: end one of them first"
        super().__init__(text, retry_after_seconds=_RETRY_AFTER_SECONDS)


class Owners:
    """Whose jobs are whose: never changes, so what was looked up once is remembered.

    Args:
        context: The service's.
    """

    def __init__(self, context: Context) -> None:
        self._context = context
        self._known: dict[UUID, int] = {}

    async def assign(self, stored: Sequence[StoredEvent]) -> Sequence[FeedEvent]:
        """Say who hears these events; what nobody hears is left out.

        Raises:
            Unavailable: A job's owner is not known, and the database does not answer.
        """
        addressed = [(event, _addressed(event)) for event in stored]
        unknown = {one.job_id for _, one in addressed if one.job_id is not None and self._learn(one) is None}
        if unknown:
            await self._look_up(unknown)
        heard = [
            FeedEvent(event.position, channels, event.body)
            for event, one in addressed
            if (channels := channels_of(one, self._known))
        ]
        # only now: among those that were learned first may be owners of these events
        while len(self._known) > _MAX_OWNERS:
            del self._known[next(iter(self._known))]
        return heard

    def _learn(self, one: Addressed) -> int | None:
        if one.user_id is not None and one.job_id is not None:
            self._known[one.job_id] = one.user_id
        return self._known.get(one.job_id) if one.job_id is not None else None

    async def _look_up(self, job_ids: set[UUID]) -> None:
        for row in await self._context.database.fetch_all(storage.owners.OWNERS, job_ids=list(job_ids)):
            self._known[row["id"]] = row["user_id"]


class EventReader:
    """Sends events.

    Args:
        context: The service's.
        broker: Its own.
    """

    def __init__(self, context: Context, broker: Broker) -> None:
        self._context = context
        self.feed = Feed(broker, Owners(context).assign)
        self._open: Counter[int] = Counter()

    async def of_user(
        self, asker: Identity, topics: Sequence[Topic], *, whose: str | None, last_id: str | None
    ) -> AsyncGenerator[bytes, None]:
        """Events of topics from now on, or after the one that was had last.

        Args:
            asker: Who wants them.
            topics: Which.
            whose: Another user's name, or everybody's: for operators. None: one's own.
            last_id: Id of the event that was had last; None: those that come from now on.

        Raises:
            Forbidden: Others' are wanted by somebody who is no operator.
            NotFound: There is no user of that name who has had a job.
            InvalidInput: The id is none of ours.
            TooManyStreams: They follow as many as they may.
            Unavailable: Events cannot be had now.
        """
        channels = topic_channels(topics, await self._users(asker, whose))
        now = await self.feed.begun()
        after = now if last_id is None else Position.read(last_id)
        return await self._open_stream(asker, channels, after, EVERYTHING)

    async def of_job(self, asker: Identity, job_id: str, *, last_id: str | None) -> AsyncGenerator[bytes, None]:
        """Events of one's own job, for operators of any job of this whole id, from the first that is kept on.

        Raises:
            JobNotFound: No such job, or someone else's.
            Conflict: Several of one's jobs begin like this.
            InvalidInput: The id of the last event is none of ours.
            TooManyStreams: They follow as many as they may.
            Unavailable: Events cannot be had now.
        """
        found = await self._find_job(asker, job_id)
        await self.feed.begun()
        after = None if last_id is None else Position.read(last_id)
        subject = f"{SUBJECT_ROOT}.*.*.{found}"
        return await self._open_stream(asker, frozenset({job_channel(found)}), after, subject)

    async def _find_job(self, asker: Identity, job_id: str) -> UUID:
        try:
            return (await get_job(user_id=asker.user_id, job_id=job_id, context=self._context)).id
        except JobNotFound:
            if not asker.is_operator:
                raise
            try:
                whole_id = UUID(job_id)
            except ValueError:
                raise JobNotFound from None
            if not await find_jobs(job_ids=[whole_id], context=self._context):
                raise
            return whole_id

    async def _users(self, asker: Identity, whose: str | None) -> list[int] | None:
        if whose is None or whose == asker.username:
            return [asker.user_id]
        check_operator(asker, "follow the events of others")
        if whose == EVERYBODY:
            return None
        rows = await self._context.database.fetch_all(storage.owners.USERS_OF_NAME, username=whose)
        if not rows:
            raise NotFound("User")
        return [row["user_id"] for row in rows]

    async def _open_stream(
        self, asker: Identity, channels: frozenset[str], after: Position | None, subject: str
    ) -> AsyncGenerator[bytes, None]:
        stream = self._counted(asker.user_id, channels, after, subject)
        await anext(stream)  # up to where the answer can begin
        return stream

    async def _counted(
        self, user_id: int, channels: frozenset[str], after: Position | None, subject: str
    ) -> AsyncGenerator[bytes, None]:
        limit = self._context.settings.max_event_streams
        if self._open[user_id] >= limit:
            raise TooManyStreams(limit)
        self._open[user_id] += 1
        try:
            yield b""
            yield beginning(_RECONNECT_MILLISECONDS, None if after is None else after.token)
            events = self.feed.events(channels, after, subject=subject, quiet_seconds=QUIET_SECONDS)
            async with aclosing(events) as news:
                async for one in news:
                    yield _told(one)
        except Behind:
            yield reason_event("end", _TOO_SLOW)
        finally:
            self._open[user_id] -= 1
            self._open += Counter()  # forgets who has none


def _addressed(stored: StoredEvent) -> Addressed:
    try:
        return read_event(msgspec.json.decode(stored.body, type=CloudEvent))
    except (msgspec.DecodeError, IndexError):
        return Addressed(None)  # none of ours


def _told(one: Sequence[FeedEvent] | Missed | Heard) -> bytes:
    if isinstance(one, Heard):
        return sign_of_life(one.position.token)
    if isinstance(one, Missed):
        return reason_event("resync", _NOT_KEPT, last_id=one.position.token)
    return b"".join(sent_event(event.body, last_id=event.position.token) for event in one)
