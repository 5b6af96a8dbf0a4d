"""Taking what waits for a durable consumer in the order of the stream, though connections and replicas die.

JetStream sends what is new before what was lost with a connection or a replica, which it sends again only when the time
for its acknowledgement is over; and while two replicas ask, each gets a part.
"""

import asyncio

import structlog
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js.api import ConsumerInfo

from shared.messaging.pull import Pull

log = structlog.get_logger(__name__)

_LATE_SECONDS = 3.0
"""By which the server may be late to send again, on a machine that is busy."""


class OrderedPull:
    """Keeps what comes, once there is a doubt, until all that is under way is in its hands, and gives it in order.

    Args:
        client: Connected; see `Pull`.
        stream: Name of the stream.
        durable: Name of the consumer.
        ack_seconds: After which the server sends again what was not acknowledged. What is not back by then, and a
            little more, was put off on purpose: nothing is kept for it any longer.
    """

    def __init__(self, client: Client, stream: str, durable: str, *, ack_seconds: float) -> None:
        self._client = client
        self._stream = stream
        self._durable = durable
        self._pull = Pull(client, stream, durable)
        self._doubt_seconds = ack_seconds + _LATE_SECONDS
        self._doubtful_until: float | None = None
        """By the loop's clock; None: there is no doubt."""
        self._kept: dict[int, Msg] = {}
        """By their places in the stream."""

    async def open(self) -> None:
        """Begin to listen; once, before the first `take`."""
        await self._pull.open()
        self.doubt()

    async def close(self) -> None:
        """Let nothing more come; raises as `Pull.close` does."""
        await self._pull.close()

    def doubt(self) -> None:
        """Something may be under way that is not in our hands: a connection or a replica was lost, or work failed."""
        self._doubtful_until = asyncio.get_running_loop().time() + self._doubt_seconds

    def give_up(self) -> list[Msg]:
        """What it has kept, for the server to send to somebody else; it is kept no longer."""
        return self._next_kept(len(self._kept))

    async def take(self, most: int, seconds: float) -> list[Msg]:
        """What waits, in the order of the stream; if nothing does, what comes first in this time.

        Empty: nothing came, or not yet all that came before it.

        Raises:
            APIError: The server refuses.
            nats.errors.Error: There is no connection.
        """
        if await self._has_all():
            if self._kept:
                return self._next_kept(most)
            came = await self._pull.take(most, seconds)
            if self._doubtful_until is None:
                return came
        else:
            came = await self._pull.take(most, seconds)
        self._kept.update((message.metadata.sequence.stream, message) for message in came)
        return []

    async def _has_all(self) -> bool:
        """Whether nothing is under way but what it has kept."""
        doubtful_until = self._doubtful_until
        if doubtful_until is None:
            return True
        info: ConsumerInfo = await self._client.jetstream().consumer_info(self._stream, self._durable)
        elsewhere = (info.num_ack_pending or 0) - len(self._kept)
        late = asyncio.get_running_loop().time() > doubtful_until
        if (elsewhere > 0 or info.num_waiting) and not late:
            return False
        if elsewhere > 0:
            log.warning("events_not_waited_for", consumer=self._durable, events=elsewhere)
        if self._doubtful_until == doubtful_until:  # no new one meanwhile
            self._doubtful_until = None
        return self._doubtful_until is None

    def _next_kept(self, most: int) -> list[Msg]:
        taken = sorted(self._kept)[:most]
        return [self._kept.pop(place) for place in taken]
