"""The feed: every event of the stream, read once for each replica and handed to whoever listens in it.

One core subscription tells that there is news; what it is, is read from the stream in the order of its sequence. So
there is no gap and no other order, whatever is restarted. The last events are kept in memory: who comes back after a
while gets what came meanwhile from there, and what is older from the stream itself. While nobody listens nothing is
read: at some hundred events a second that costs more than anything else of a replica.
"""

import asyncio
import time
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Sequence
from contextlib import aclosing, contextmanager
from typing import Any

import msgspec
import structlog
from prometheus_client import Counter, Gauge

from shared.background import Loop, wait_until_set
from shared.clock import Stopwatch
from shared.errors import BrokerUnavailable
from shared.messaging.broker import Broker
from shared.messaging.stream_reader import EVERYTHING, Position, StoredEvent, StreamReader

log = structlog.get_logger(__name__)

KEPT_EVENTS = 10_000
MAX_WAITING_BYTES = 1 << 20
"""Of events that wait for one listener; whoever is behind further is cut off, and asks for the rest when they can."""
_BEGIN_SECONDS = 3.0
_CHECK_SECONDS = 5.0
_IDLE_SECONDS = 30.0
"""Without a listener, before the reading ends: who was cut off comes back soon."""
_PAUSES_SECONDS = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5)
"""After news that the stream does not show yet: it is told at the same time as it is stored."""
_READS_OF_THE_STREAM = 4
_listeners = Gauge("gpudev_event_listeners", "Answers that send events as they come")
_cut_off = Counter("gpudev_event_listeners_cut_off", "Listeners that were cut off because they took events too slowly")
_restarted = Counter("gpudev_event_feed_restarts", "Times that the feed began anew, because the stream had lost events")


class FeedEvent(msgspec.Struct, frozen=True):
    """An event as listeners get it."""

    position: Position
    channels: frozenset[str]
    """Who hears it: those who listen to one of these."""
    body: bytes
    """The CloudEvent."""


Assign = Callable[[Sequence[StoredEvent]], Awaitable[Sequence[FeedEvent]]]
"""Says of events, in their order, who hears them; those that nobody hears are left out."""


class Behind(Exception):
    """The listener took events too slowly and was cut off."""


class Missed(msgspec.Struct, frozen=True):
    """In place of events that the stream does not hold any more."""

    position: Position
    """After which the next events come."""


class Heard(msgspec.Struct, frozen=True):
    """Everything up to here was heard; there is nothing new."""

    position: Position


class Listener:
    """Those events of the feed that somebody wants to hear, from now on."""

    def __init__(self, channels: frozenset[str]) -> None:
        self.channels = channels
        self._waiting: list[FeedEvent] = []
        self._bytes = 0
        self._news = asyncio.Event()
        self._behind = False

    def offer(self, event: FeedEvent) -> None:
        """Have it wait for the listener, within bounds."""
        if self._behind:
            return
        self._waiting.append(event)
        self._bytes += len(event.body)
        if self._bytes > MAX_WAITING_BYTES:
            _cut_off.inc()
            self._behind = True
            self._waiting = []
        self._news.set()

    async def take(self, seconds: float) -> Sequence[FeedEvent]:
        """What waits, or comes within this time.

        Raises:
            Behind: More came than may wait.
        """
        if not self._waiting and not self._behind:
            self._news.clear()
            await wait_until_set(self._news, seconds)
        if self._behind:
            raise Behind
        taken, self._waiting, self._bytes = self._waiting, [], 0
        return taken


class Feed:
    """Reads the stream, and hands its events on.

    Args:
        broker: The service's.
        assign: Says who hears an event.
        stopwatch: Tells when the stream was last looked at.
    """

    def __init__(self, broker: Broker, assign: Assign, *, stopwatch: Stopwatch = time.monotonic) -> None:
        self._broker = broker
        self._assign = assign
        self._stopwatch = stopwatch
        self._reader = StreamReader(broker)
        self._reading = asyncio.Semaphore(_READS_OF_THE_STREAM)
        self._position: Position | None = None
        self._begun = asyncio.Event()
        self._created = ""
        self._kept: deque[FeedEvent] = deque(maxlen=KEPT_EVENTS)
        self._kept_after = 0
        """Every event after this sequence is among the kept ones, unless nobody hears it."""
        self._listening: dict[str, set[Listener]] = {}
        self._subscribed = False
        self._followers = 0
        self._asked_at = -_IDLE_SECONDS
        self._next_check = 0.0
        self._empty_reads = len(_PAUSES_SECONDS)
        self.loop = Loop("event_feed", self._turn, period_seconds=1.0, stale_seconds=20.0)
        broker.on_connect(self._after_connect)

    async def begun(self) -> Position:
        """Up to where events were read, once that is known: at once while somebody listens.

        Raises:
            BrokerUnavailable: The stream could not be read since then.
        """
        self._asked_at = self._stopwatch()
        if not self._begun.is_set():
            self.loop.wake()
        try:
            async with asyncio.timeout(_BEGIN_SECONDS):
                await self._begun.wait()
        except TimeoutError:
            raise BrokerUnavailable from None
        return self.position

    @property
    def reading(self) -> bool:
        """Whether the stream is read: somebody listens, or did so lately."""
        return self._position is not None

    @property
    def position(self) -> Position:
        """Up to where events were read.

        Raises:
            BrokerUnavailable: Nothing could be read since somebody listens.
        """
        if self._position is None:
            raise BrokerUnavailable
        return self._position

    async def events(
        self, channels: frozenset[str], after: Position | None, *, subject: str = EVERYTHING, quiet_seconds: float
    ) -> AsyncGenerator[Sequence[FeedEvent] | Missed | Heard, None]:
        """What is heard on these channels after a position, for ever, in the stream's order.

        Args:
            channels: Which.
            after: What the listener has read last; None: nothing, and all that the stream holds is wanted.
            subject: On which all that is wanted was published, to read less of the stream.
            quiet_seconds: After so long without an event the listener is told where they are.

        Raises:
            Behind: The listener is too slow, and has to come back.
            BrokerUnavailable: What is wanted is not kept here, and the stream cannot be read.
        """
        self._followers += 1
        try:
            await self.begun()
            async with aclosing(self._events(channels, after, subject, quiet_seconds)) as found:
                async for one in found:
                    yield one
        finally:
            self._followers -= 1
            self._asked_at = self._stopwatch()

    async def _events(
        self, channels: frozenset[str], after: Position | None, subject: str, quiet_seconds: float
    ) -> AsyncGenerator[Sequence[FeedEvent] | Missed | Heard, None]:
        at, missed = await self._find(after)
        if missed:
            yield Missed(at)
        while not self._keeps(at.sequence):
            async with self._reading:
                target = self.position
                stored = await self._reader.read(at.sequence, subject=subject)
                found = await self._assign(stored)
            if heard := [event for event in found if not channels.isdisjoint(event.channels)]:
                yield heard
            at = stored[-1].position if stored else target
        with self._listen(channels) as listener:
            # nothing is awaited between here and the line above: no event comes in between
            kept = self._kept_since(at.sequence, channels)
            if kept:
                yield kept
            while True:
                taken = await listener.take(quiet_seconds)
                yield taken or Heard(self.position)

    async def _find(self, after: Position | None) -> tuple[Position, bool]:
        """Where to go on, and whether events before that are missing."""
        if after is not None and self._keeps(after.sequence) and self._recognises(after):
            return after, False
        bounds = await self._reader.bounds()
        start = Position(bounds.first - 1)
        if after is None:
            return start, False
        if after.sequence < start.sequence:
            return start, True
        if after == start or await self._reader.holds(after):
            return after, False
        # the stream was lost and is filled again: all that it has comes again, with the ids that it had
        return start, False

    def _keeps(self, sequence: int) -> bool:
        return self._kept_after <= sequence <= self.position.sequence

    def _recognises(self, position: Position) -> bool:
        """Whether this very event was read here."""
        return position == self._position or any(event.position == position for event in reversed(self._kept))

    def _kept_since(self, sequence: int, channels: frozenset[str]) -> Sequence[FeedEvent]:
        found: list[FeedEvent] = []
        for event in reversed(self._kept):
            if event.position.sequence <= sequence:
                break
            if not channels.isdisjoint(event.channels):
                found.append(event)
        found.reverse()
        return found

    @contextmanager
    def _listen(self, channels: frozenset[str]) -> Iterator[Listener]:
        listener = Listener(channels)
        for channel in channels:
            self._listening.setdefault(channel, set()).add(listener)
        _listeners.inc()
        try:
            yield listener
        finally:
            _listeners.dec()
            for channel in channels:
                self._listening[channel].discard(listener)
                if not self._listening[channel]:
                    del self._listening[channel]

    async def _after_connect(self) -> None:
        if not self._subscribed:  # nats-py renews the subscriptions of a connection by itself
            await self._broker.client.subscribe(EVERYTHING, cb=self._on_news)
            self._subscribed = True
        self._next_check = 0.0
        self._empty_reads = 0
        self.loop.obstacle_gone()

    async def _on_news(self, _: Any) -> None:
        if self._position is not None:
            self._empty_reads = 0
            self.loop.wake()

    async def _turn(self) -> bool:
        if not self._followers and self._stopwatch() - self._asked_at >= _IDLE_SECONDS:
            self._sleep()
            return False
        if self._position is None or self._stopwatch() >= self._next_check:
            await self._check()
            self._next_check = self._stopwatch() + _CHECK_SECONDS
        stored = await self._reader.read(self.position.sequence)
        if stored:
            self._hand_on(await self._assign(stored), stored[-1].position)
            return True
        if self._empty_reads < len(_PAUSES_SECONDS):
            asyncio.get_running_loop().call_later(_PAUSES_SECONDS[self._empty_reads], self.loop.wake)
            self._empty_reads += 1
        return False

    def _sleep(self) -> None:
        self._position = None
        self._begun.clear()
        self._kept.clear()

    def _hand_on(self, events: Sequence[FeedEvent], position: Position) -> None:
        for event in events:
            if len(self._kept) == KEPT_EVENTS:
                self._kept_after = self._kept[0].position.sequence
            self._kept.append(event)
            for listener in {one for channel in event.channels for one in self._listening.get(channel, ())}:
                listener.offer(event)
        self._position = position

    async def _check(self) -> None:
        """See that the stream is the one that was read, and still holds what was read."""
        bounds = await self._reader.bounds()
        if self._position is None:
            last = await self._reader.find(bounds.last) if bounds.last >= bounds.first else None
            self._begin_at(last.position if last else Position(bounds.last), bounds.created)
        elif bounds.created != self._created or not await self._holds_position(bounds.first, bounds.last):
            log.warning("event_feed_restarted", position=self._position.sequence, first=bounds.first)
            _restarted.inc()
            self._begin_at(Position(bounds.first - 1), bounds.created)

    async def _holds_position(self, first: int, last: int) -> bool:
        position = self.position
        if position.sequence < first:  # it has left the stream by age
            return True
        return position.sequence <= last and await self._reader.holds(position)

    def _begin_at(self, position: Position, created: str) -> None:
        self._created = created
        self._kept.clear()
        self._position = position
        self._kept_after = position.sequence
        self._begun.set()
