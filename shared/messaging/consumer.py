"""The consumer: each event takes effect once, in one transaction with its inbox row."""

import asyncio
import hashlib
import time
from collections.abc import Awaitable, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from uuid import NAMESPACE_URL, UUID, uuid5

import msgspec
import sqlalchemy as sa
import structlog
from nats.aio.msg import Msg
from nats.js.api import AckPolicy, ConsumerConfig, ConsumerInfo, DeliverPolicy, ReplayPolicy
from nats.js.errors import APIError, NotFoundError
from prometheus_client import Counter
from sqlalchemy.dialects.postgresql import insert

from shared.background import Loop, in_turns
from shared.clock import Clock, Stopwatch, utc_now
from shared.contracts.events import DEAD_LETTER_ROOT, STREAM, CloudEvent
from shared.database import Database, Statement
from shared.database.purge import delete_some, purge
from shared.database.tables import dead_letters, inbox
from shared.errors import BrokerUnavailable, DatabaseUnavailable, Unavailable
from shared.leader_lock import LeaderLock
from shared.logs import mask_text
from shared.messaging.batch_delay import BatchDelay
from shared.messaging.broker import UNREACHABLE, Broker
from shared.messaging.delivery import AnySubscription, Delivery
from shared.messaging.ordered_pull import OrderedPull
from shared.messaging.stream import CHECK_SECONDS, differences, report

log = structlog.get_logger(__name__)

RETENTION = timedelta(days=8)
_FINGERPRINT = "gpudev.fingerprint"
"""Metadata of a consumer: of the configuration that was wanted by whoever made it."""
_BATCH = 200
_FETCH_SECONDS = 2.0
_STANDBY_SECONDS = 0.2
_STANDSTILL_SECONDS = 15.0
_LEADER_LOCK = "inbx"
_ACK_WAIT_SECONDS = 5
"""After so long, what was under way when the broker or a replica died comes again; the inbox knows a slow one."""
_HAND_OVER_SECONDS = 3.0
"""For what was taken to be done; after that it comes to another replica by itself, later."""
_RETRY_SECONDS = (0.5, 1, 2, 5, 10, 20, 30, 60)
MAX_ATTEMPTS = len(_RETRY_SECONDS)
_handled = Counter("gpudev_events_handled", "Events handled", ["type", "outcome"])
_dead = Counter("gpudev_events_dead_lettered", "Events parked after the last attempt", ["type"])

_COUNT_FAILURE = Statement(
    insert(inbox)
    .values(event_id=sa.bindparam("event_id"), attempts=1, updated_at=sa.bindparam("now"))
    .on_conflict_do_update(
        index_elements=[inbox.c.event_id],
        set_={"attempts": inbox.c.attempts + 1, "updated_at": sa.bindparam("now")},
        where=inbox.c.done_at.is_(None),
    )
    .returning(inbox.c.attempts)
)
_PARK = Statement(
    insert(dead_letters).values({c.name: sa.bindparam(c.name) for c in dead_letters.c}).on_conflict_do_nothing()
)
_PURGE = delete_some(inbox, inbox.c.updated_at < sa.bindparam("before"))


class Backlog(msgspec.Struct, frozen=True):
    """What a consumer has still to do."""

    waiting: int
    """Events."""
    oldest_at: datetime | None
    """When the oldest of them came into the stream; None: none waits."""


class Consumer:
    """One durable consumer of a service.

    One replica reads at a time, the others stand by: with two, effects would not come in the order of the events, and
    jobs would overtake each other in the queue.

    Args:
        name: Durable name, the service's own.
        subscriptions: What it listens to.
        clock: Tells when events took effect or failed.
        stopwatch: Tells when the consumer was last looked at.
    """

    def __init__(
        self,
        *,
        name: str,
        database: Database,
        broker: Broker,
        subscriptions: Sequence[AnySubscription],
        clock: Clock = utc_now,
        stopwatch: Stopwatch = time.monotonic,
    ) -> None:
        self._name = name
        self._database = database
        self._broker = broker
        self._delivery = Delivery(subscriptions)
        self._clock = clock
        self._stopwatch = stopwatch
        self._delay = BatchDelay(stopwatch)
        self._pull: OrderedPull | None = None
        self._stale = True
        """Stream and consumer may be gone, and events under way elsewhere."""
        self._wanted = _configuration(name, [s.event.subject_filter() for s in subscriptions])
        self._next_check = 0.0
        self._progress: tuple[int, float] | None = None
        """Deliveries so far, and when they were first seen, while events wait; None: none waited."""
        self._leader_lock = LeaderLock(database, _LEADER_LOCK)
        self._term = 0
        self._leaving = False
        self._left = asyncio.Event()
        self.loop = Loop(
            "consumer",
            self._turn,
            period_seconds=0,
            turn_seconds=60.0,
            stale_seconds=20.0,
            at_end=self._leader_lock.release,
        )
        broker.on_connect(self._after_connect)

    async def state(self) -> tuple[int | None, str | None]:
        """Events that wait or are being worked on, None when the broker does not say; and what is wrong with it."""
        try:
            info = await self._broker.jetstream.consumer_info(STREAM, self._name, timeout=1)
        except NotFoundError:
            return None, f"the consumer {self._name} is not there"
        except (*UNREACHABLE, BrokerUnavailable):
            return None, None
        differing = differences(info.config, self._wanted)
        fault = f"the consumer {self._name} is not as configured ({', '.join(differing)})" if differing else None
        return _unfinished(info), fault or self._standstill(info)

    def _standstill(self, info: ConsumerInfo) -> str | None:
        """That events wait and nobody fetches them, as when a stranger has the lock of those who would."""
        if not info.num_pending:
            self._progress = None
            return None
        delivered = info.delivered.consumer_seq if info.delivered else 0
        if self._progress is None or self._progress[0] != delivered:
            self._progress = (delivered, self._stopwatch())
        seconds = self._stopwatch() - self._progress[1]
        if seconds <= _STANDSTILL_SECONDS:
            return None
        return f"the consumer {self._name} has taken none of {info.num_pending} events for {seconds:.0f} s"

    async def backlog(self) -> Backlog:
        """What waits in the stream, or is being worked on.

        Raises:
            BrokerUnavailable: The broker does not say.
        """
        try:
            info = await self._broker.jetstream.consumer_info(STREAM, self._name)
            waiting = _unfinished(info)
            if not waiting:
                return Backlog(0, None)
            # the first of ours after what is done is the oldest that is not
            done = _done_up_to(info)
            came = [await self._next_at(done + 1, subject) for subject in self._wanted.filter_subjects or ()]
        except UNREACHABLE as error:
            raise BrokerUnavailable(cause=type(error).__name__) from error
        return Backlog(waiting, min((one for one in came if one), default=None))

    async def _next_at(self, sequence: int, subject: str) -> datetime | None:
        try:
            message = await self._broker.jetstream.get_msg(STREAM, seq=sequence, subject=subject, next=True)
        except NotFoundError:
            return None
        return message.time

    async def purge(self, now: datetime) -> bool:
        """Forget events that the stream can no longer deliver; True: there are more."""
        return await purge(self._database, _PURGE, before=now - RETENTION)

    async def hand_over(self) -> None:
        """Take no more events and do those that were taken, so that another replica need not wait for them."""
        self._leaving = True
        with suppress(*UNREACHABLE, BrokerUnavailable, TimeoutError):
            async with asyncio.timeout(_HAND_OVER_SECONDS):
                if self._pull is not None:
                    await self._pull.close()
                await self._left.wait()
                await self._broker.client.flush()  # the broker has heard what was acknowledged

    async def _after_connect(self) -> None:
        self._lose_track()
        self.loop.obstacle_gone()

    def _lose_track(self) -> None:
        self._stale = True
        if self._pull is not None:
            self._pull.doubt()

    async def _turn(self) -> bool:
        try:
            if not self._leaving and await self._leads():
                await self._work_on(await self._fetch())
                return True
            await self._give_up()
        except UNREACHABLE as error:
            self._lose_track()
            raise BrokerUnavailable(cause=type(error).__name__) from error
        except BaseException:  # also when cancelled: what was in our hands comes again
            self._lose_track()
            raise
        await asyncio.sleep(_STANDBY_SECONDS)
        return True

    async def _leads(self) -> bool:
        """Whether this replica reads; what was under way when another one did may be so still."""
        held = await self._leader_lock.held()
        if self._term != self._leader_lock.term:
            self._term = self._leader_lock.term
            self._lose_track()
        return held

    async def _give_up(self) -> None:
        """Another replica reads, from now on or already."""
        if self._pull is not None:
            await self._give_back(self._pull.give_up())
        if self._leaving:
            self._leader_lock.release()
            self._left.set()

    async def _fetch(self) -> list[Msg]:
        if self._pull is None or self._stale:
            self._pull = await self._subscribe()
        elif self._stopwatch() > self._next_check:
            await self._put_right()
        return await self._pull.take(_BATCH, _FETCH_SECONDS)

    async def _subscribe(self) -> OrderedPull:
        self._stale = False  # what is lost from here on makes it so again
        await self._broker.ensure_stream()
        await self._put_right()
        if self._pull is not None:
            return self._pull
        pull = OrderedPull(self._broker.client, STREAM, self._name, ack_seconds=_ACK_WAIT_SECONDS)
        await pull.open()
        return pull

    async def _work_on(self, messages: Sequence[Msg]) -> None:
        if not messages:
            return
        term = self._term
        if not await self._leads() or self._term != term:  # somebody may have read while we waited
            await self._give_back(messages)
            return
        if len(messages) == 1 or not await self._work_together(messages):
            await self._work_each(messages)
        if len(messages) < _BATCH:
            await asyncio.sleep(self._delay.seconds_after(len(messages)))

    async def _put_right(self) -> None:
        """Have the consumer that we want.

        One that somebody else has changed is made anew: it has passed over events that are ours. They come again from
        the beginning, and the inbox knows those that have had their effect. One of an older version of ours gets the
        new configuration and goes on where it is.
        """
        found = await self._find()
        differing = differences(found.config, self._wanted) if found else []
        if found is None:
            if self._pull is not None:
                report(f"consumer {self._name}", ["deleted"])
            await self._make()
        elif differing and (found.config.metadata or {}).get(_FINGERPRINT) == _fingerprint(self._wanted):
            report(f"consumer {self._name}", differing)
            await self._make_anew()
        elif differing:
            log.info("consumer_renewed", consumer=self._name, differing=differing)
            await self._renew()
        self._next_check = self._stopwatch() + CHECK_SECONDS

    async def _find(self) -> ConsumerInfo | None:
        try:
            info: ConsumerInfo = await self._broker.jetstream.consumer_info(STREAM, self._name)
        except NotFoundError:
            return None
        return info

    async def _make(self) -> None:
        await self._broker.jetstream.add_consumer(STREAM, self._wanted)

    async def _make_anew(self) -> None:
        await self._broker.jetstream.delete_consumer(STREAM, self._name)
        await self._make()

    async def _renew(self) -> None:
        try:
            await self._make()
        except APIError:  # some things of a consumer can never be changed
            await self._make_anew()

    async def _work_together(self, messages: Sequence[Msg]) -> bool:
        """One commit for what waited together; False, and nothing done, when one of them fails."""
        try:
            async with self._database.transaction() as transaction:
                bodies = [message.data for message in messages]
                outcomes = await self._delivery.handle_all(transaction, bodies, self._clock())
        except Exception as error:  # noqa: BLE001 - each is then worked by itself, where its failure is told
            log.info("events_worked_one_by_one", events=len(messages), error=type(error).__name__)
            return False
        async for message, outcome in in_turns(zip(messages, outcomes, strict=True)):
            self._count(outcome)
            await self._answer(message.ack())
        return True

    async def _work_each(self, messages: Sequence[Msg]) -> None:
        """One after the other.

        Raises:
            DatabaseUnavailable: It is away. What could not be worked comes again, in its order and before what is
                new: what came out of order would be told to webhooks out of order.
        """
        for place, message in enumerate(messages):
            try:
                await self._work(message)
            except DatabaseUnavailable:
                log.warning("events_wait", events=len(messages) - place)
                await self._give_back(messages[place:])
                raise

    async def _work(self, message: Msg) -> None:
        try:
            async with self._database.transaction() as transaction:
                outcome = await self._delivery.handle(transaction, message.data, self._clock())
        except DatabaseUnavailable:
            raise
        except Unavailable as error:  # of this event alone: what it follows from is still under way
            log.warning("event_waits", subject=message.subject, error=type(error).__name__)
            await self._answer(message.nak(delay=1))
        except Exception as error:  # noqa: BLE001 - whatever a handler raises is counted, retried and parked
            await self._failed(message, error)
        else:
            self._count(outcome)
            await self._answer(message.ack())

    def _count(self, outcome: tuple[str, str]) -> None:
        _handled.labels(*outcome).inc()

    async def _failed(self, message: Msg, error: Exception) -> None:
        log.error("event_failed", subject=message.subject, error=type(error).__name__, exc_info=error)
        event_id, event_type = _identify(message)
        now = self._clock()
        attempts = await self._database.fetch_value(_COUNT_FAILURE, event_id=event_id, now=now) or 1
        _handled.labels(event_type, "failed").inc()
        if attempts < MAX_ATTEMPTS:
            await self._answer(message.nak(delay=_RETRY_SECONDS[attempts - 1]))
            return
        await self._database.execute(
            _PARK,
            event_id=event_id,
            subject=message.subject,
            body=message.data,
            error=mask_text(f"{type(error).__name__}: {error}"),
            parked_at=now,
        )
        _dead.labels(event_type).inc()
        log.error("event_dead_lettered", subject=message.subject, attempts=attempts)
        await self._answer(self._tell_dead_letter(message))
        await self._answer(message.term())

    async def _tell_dead_letter(self, message: Msg) -> None:
        await self._broker.client.publish(f"{DEAD_LETTER_ROOT}.{self._name}.{message.subject}", message.data)

    async def _give_back(self, messages: Sequence[Msg]) -> None:
        """To whoever asks next."""
        for message in messages:
            await self._answer(message.nak())

    async def _answer(self, reply: Awaitable[None]) -> None:
        try:
            await reply
        except (*UNREACHABLE, BrokerUnavailable) as error:
            # the broker delivers again, and the inbox knows the event
            log.warning("event_not_acknowledged", error=type(error).__name__)


async def has_taken_effect(broker: Broker, name: str, sequence: int) -> bool:
    """Whether all that came for a service's consumer up to a place in the stream has had its effect.

    Args:
        broker: The service's.
        name: Of the consumer, the service's own.
        sequence: In the stream.

    Raises:
        BrokerUnavailable: The broker does not say.
    """
    try:
        info = await broker.jetstream.consumer_info(STREAM, name)
    except UNREACHABLE as error:
        raise BrokerUnavailable(cause=type(error).__name__) from error
    return _done_up_to(info) >= sequence or not _unfinished(info)


def _unfinished(info: ConsumerInfo) -> int:
    """Events that wait or are being worked on."""
    return (info.num_pending or 0) + (info.num_ack_pending or 0)


def _done_up_to(info: ConsumerInfo) -> int:
    """Place in the stream up to which everything is acknowledged."""
    return info.ack_floor.stream_seq if info.ack_floor else 0


def _identify(message: Msg) -> tuple[UUID, str]:
    try:
        event = msgspec.json.decode(message.data, type=CloudEvent)
    except msgspec.DecodeError:
        return uuid5(NAMESPACE_URL, f"{message.subject}#{message.metadata.sequence.stream}"), "unreadable.v1"
    return event.id, event.type


def _configuration(name: str, filters: list[str]) -> ConsumerConfig:
    config = ConsumerConfig(
        name=name,
        durable_name=name,
        deliver_policy=DeliverPolicy.ALL,
        replay_policy=ReplayPolicy.INSTANT,
        ack_policy=AckPolicy.EXPLICIT,
        ack_wait=_ACK_WAIT_SECONDS,
        max_deliver=-1,  # attempts are counted in the inbox: an outage must not use them up
        max_ack_pending=1000,
        max_waiting=512,
        filter_subjects=filters,
    )
    return config.evolve(metadata={_FINGERPRINT: _fingerprint(config)})


def _fingerprint(config: ConsumerConfig) -> str:
    plain = {name: value for name, value in config.as_dict().items() if name != "metadata"}
    return hashlib.sha256(msgspec.json.encode(plain, order="sorted")).hexdigest()[:16]
