"""The relay: brings outbox rows to the stream, at least once, in the order of each entity's changes."""

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import msgspec
import sqlalchemy as sa
import structlog
from nats.js import JetStreamContext
from nats.js.api import PubAck, StreamConfig
from nats.js.errors import NotFoundError
from prometheus_client import Counter

from shared.background import Loop, in_turns
from shared.clock import Clock, utc_now
from shared.contracts.events import STREAM
from shared.database import Database, Statement, Transaction
from shared.database.locks import try_lock
from shared.database.purge import delete_some, purge
from shared.database.tables import outbox, stream_seen
from shared.errors import BrokerUnavailable
from shared.messaging.batch_delay import BatchDelay
from shared.messaging.broker import UNREACHABLE, Broker
from shared.messaging.outbox import envelope
from shared.tracing import Kind, Span, begin_span

log = structlog.get_logger(__name__)

BATCH = 500
RETENTION = timedelta(days=7)
_ACK_SECONDS = 5.0
_PUBLISH_SECONDS = 20.0
"""For a batch."""
_TURN_SECONDS = 600.0
"""With the preparation of a refill in it: a hundred thousand events take a second."""
_CHECK_PERIOD = timedelta(seconds=5)
_AT_ONCE = datetime.min.replace(tzinfo=UTC)
_published = Counter("gpudev_outbox_published", "Events published")
_republished = Counter("gpudev_outbox_republished", "Events published again because the stream had lost them")

_TRY_LOCK = try_lock("outb")
_CLAIM = Statement(
    sa.select(outbox)
    .where(outbox.c.published_at.is_(None))
    .order_by(outbox.c.id)
    .limit(BATCH)
    .with_for_update(skip_locked=True)
)
_ANY_UNPUBLISHED = Statement(sa.select(sa.exists().where(outbox.c.published_at.is_(None))))
_MARK = Statement(
    sa.text(
        "UPDATE outbox SET published_at = CAST(:now AS timestamptz), stream_sequence = acked.sequence "
        "FROM unnest(CAST(:ids AS bigint[]), CAST(:sequences AS bigint[])) AS acked(id, sequence) "
        "WHERE outbox.id = acked.id"
    )
)
_SKEW = timedelta(minutes=10)
"""By which the clocks of replicas may differ."""
_since = sa.bindparam("since", type_=outbox.c.published_at.type)
_last_published_at = sa.select(sa.func.max(outbox.c.published_at)).scalar_subquery()
# among the latest: to find the highest sequence among half a million of a week takes PostgreSQL half a second
_NEWEST_PUBLISHED = Statement(
    sa.select(outbox.c.event_id, outbox.c.stream_sequence)
    .where(outbox.c.published_at > sa.func.greatest(_since, _last_published_at - _SKEW))
    .order_by(outbox.c.stream_sequence.desc())
    .limit(1)
)
_some_published = (
    sa.select(outbox.c.id)
    .where(outbox.c.id > sa.bindparam("after", type_=sa.BigInteger), outbox.c.published_at > _since)
    .order_by(outbox.c.id)
    .limit(sa.bindparam("most", type_=sa.BigInteger))
    .cte("some")
)
_unpublished = (
    sa.update(outbox)
    .where(outbox.c.id == sa.any_(sa.func.array(sa.select(_some_published.c.id).scalar_subquery())))
    .values(published_at=None, stream_sequence=None)
    .cte("unpublished")
)
_UNPUBLISH = Statement(
    sa.select(sa.func.count().label("events"), sa.func.max(_some_published.c.id).label("last"))
    .select_from(_some_published)
    .add_cte(_unpublished)
)
_UNPUBLISHED_AT_ONCE = 10_000
"""Events: a week of a large lab has millions, and a statement has ten seconds."""
_PURGE = delete_some(outbox, outbox.c.published_at < sa.bindparam("before"))
_SEEN = Statement(sa.select(stream_seen.c.created).where(stream_seen.c.stream == STREAM))
_FORGET_SEEN = Statement(sa.delete(stream_seen))
_SEE = Statement(sa.insert(stream_seen).values(stream=STREAM, created=sa.bindparam("created")))


def waves(rows: Sequence[Any]) -> list[list[Any]]:
    """Outbox rows in their order, those about one entity one wave after the other.

    The stream may take a later event and not an earlier one, as when it gets a new leader between the two.
    """
    found: list[list[Any]] = []
    earlier: dict[str, int] = {}
    for row in rows:
        number = earlier.get(row["entity_id"], 0)
        if number == len(found):
            found.append([])
        found[number].append(row)
        earlier[row["entity_id"]] = number + 1
    return found


class Relay:
    """Publishes one service's outbox.

    One replica publishes at a time (an advisory lock), in the order of the rows, so that subscribers see each entity's
    events in order; it claims rows by "unpublished", never by "id after the last", since commits are not in the order
    of ids. Every few seconds, and after each reconnect, it asks whether the stream still holds what was acknowledged:
    a stream that was lost gets the events of the retention time again, with the same ids.
    """

    def __init__(self, *, database: Database, broker: Broker, service: str, clock: Clock = utc_now) -> None:
        self._database = database
        self._broker = broker
        self._source = f"/gpudev/{service}"
        self._clock = clock
        self._delay = BatchDelay()
        self._next_check = _AT_ONCE
        self._stream_fault: str | None = None
        self._woken = True
        """Somebody has written events since the last turn."""
        self._refused = 0
        """Events of the last turn that the stream did not acknowledge."""
        self.loop = Loop(
            "outbox_relay",
            self._turn,
            period_seconds=1.0,
            pause_seconds=0.01,
            turn_seconds=_TURN_SECONDS,
            stale_seconds=15.0,
        )
        broker.on_connect(self._after_connect)

    def wake(self) -> None:
        """Publish soon."""
        self._woken = True
        self.loop.wake()

    def fault(self) -> str | None:
        """For health: that what is published is stored nowhere; None when it is, as far as this replica knows."""
        if self._stream_fault is not None:
            return self._stream_fault
        return f"outbox_relay: the stream {STREAM} has not taken {self._refused} events" if self._refused else None

    async def purge(self, now: datetime) -> bool:
        """Delete events that the stream no longer keeps either; True: there are more."""
        return await purge(self._database, _PURGE, before=now - RETENTION - timedelta(days=1))

    async def _after_connect(self) -> None:
        self._next_check = _AT_ONCE
        self.loop.obstacle_gone()

    async def _turn(self) -> bool:
        now = self._clock()
        jetstream = self._broker.jetstream
        if now >= self._next_check:
            await self._check_stream(jetstream, now)
            self._next_check = now + _CHECK_PERIOD
        async with asyncio.timeout(_PUBLISH_SECONDS):
            return await self._publish_some(jetstream, now)

    async def _publish_some(self, jetstream: JetStreamContext, now: datetime) -> bool:
        woken, self._woken = self._woken, False
        # at rest one statement a turn is enough to see what another replica may have left
        if not woken and not await self._database.fetch_value(_ANY_UNPUBLISHED):
            self._refused = 0
            return False
        async with self._database.transaction() as transaction:
            if not await transaction.fetch_value(_TRY_LOCK):
                self._refused = 0  # another replica knows
                return False
            rows = await transaction.fetch_all(_CLAIM)
            if not rows:
                self._refused = 0
            else:
                await self._publish(transaction, jetstream, rows, now)
        if len(rows) == BATCH:
            return True
        await asyncio.sleep(self._delay.seconds_after(len(rows)))
        return False

    async def _publish(
        self, transaction: Transaction, jetstream: JetStreamContext, rows: list[Any], now: datetime
    ) -> None:
        acked: dict[int, int] = {}
        self._refused = 0
        for wave in waves(rows):
            taken = await self._publish_wave(jetstream, wave)
            acked |= taken
            self._refused = len(wave) - len(taken)
            if self._refused:
                self._next_check = _AT_ONCE
                log.warning("events_not_acknowledged", sent=len(wave), acknowledged=len(taken))
                break  # what comes after them about the same things must not overtake them
        if acked:
            await transaction.execute(_MARK, now=now, ids=list(acked), sequences=list(acked.values()))
            _published.inc(len(acked))

    async def _publish_wave(self, jetstream: JetStreamContext, rows: Sequence[Any]) -> dict[int, int]:
        """Places in the stream of those that it has taken, by their row ids."""
        try:
            # all are sent before any acknowledgement is awaited
            sent = {row["id"]: await self._send(jetstream, row) async for row in in_turns(rows)}
            await asyncio.wait(sent.values(), timeout=_ACK_SECONDS)
            return {
                row_id: future.result().seq
                for row_id, future in sent.items()
                if future.done() and not future.cancelled() and future.exception() is None
            }
        finally:
            _give_up(jetstream)

    async def _send(self, jetstream: JetStreamContext, row: Any) -> asyncio.Future[PubAck]:
        attributes = {"messaging.system": "nats", "messaging.message.id": str(row["event_id"])}
        name = f"publish {row['type']}"
        traced = begin_span(name, parent=row["traceparent"], kind=Kind.PRODUCER, attributes=attributes)
        traceparent = None if traced is None else traced.traceparent
        body = msgspec.json.encode(envelope(row, self._source, traceparent=traceparent))
        try:
            # no time for its turn: a batch is smaller than what may be under way, and each time would be a task
            sent = await jetstream.publish_async(row["subject"], body, headers={"Nats-Msg-Id": str(row["event_id"])})
        except UNREACHABLE as error:
            raise BrokerUnavailable(cause=type(error).__name__) from error
        if traced is not None:
            sent.add_done_callback(partial(_end, traced))
        return sent

    async def _check_stream(self, jetstream: JetStreamContext, now: datetime) -> None:
        try:
            stream = await self._broker.ensure_stream()
            self._stream_fault = _fault_of(stream.config, self._broker.stream)
            created = str(stream.created)
            seen = await self._database.fetch_value(_SEEN)
            lost = seen is not None and seen != created
            lost = lost or not await self._holds_newest(jetstream, now)
        except UNREACHABLE as error:
            raise BrokerUnavailable(cause=type(error).__name__) from error
        if lost or seen is None:
            await self._start_over(created, now if lost else None)

    async def _holds_newest(self, jetstream: JetStreamContext, now: datetime) -> bool:
        newest = await self._database.fetch_one(_NEWEST_PUBLISHED, since=now - RETENTION)
        if newest is None:
            return True
        try:
            message = await jetstream.get_msg(STREAM, seq=newest["stream_sequence"])
        except NotFoundError:
            return False
        return (message.headers or {}).get("Nats-Msg-Id") == str(newest["event_id"])

    async def _start_over(self, created: str, lost_at: datetime | None) -> None:
        async with self._database.transaction() as transaction:
            await transaction.execute(_FORGET_SEEN)
            await transaction.execute(_SEE, created=created)
            if lost_at is not None:
                # in one transaction: what is not marked yet must not be overtaken by what is
                count = await self._unpublish(transaction, lost_at - RETENTION)
                _republished.inc(count)
                log.error("stream_lost_events", publishing_again=count)

    async def _unpublish(self, transaction: Transaction, since: datetime) -> int:
        """How many events are to be published again."""
        count = after = 0
        while True:
            (some,) = await transaction.fetch_all(_UNPUBLISH, since=since, after=after, most=_UNPUBLISHED_AT_ONCE)
            if not some["events"]:
                return count
            count, after = count + some["events"], some["last"]
            log.info("stream_refill_prepared", events=count)


def _give_up(jetstream: JetStreamContext) -> None:
    """Await no acknowledgement any more; every wave ends so, however it ends.

    nats-py has room for some thousands that are under way. It keeps also those whose connection was lost as they were
    sent, and would at last send nothing any more.
    """
    under_way = jetstream._publish_async_futures  # noqa: SLF001 - the one that could not be sent is told to nobody
    for future in [*under_way.values()]:
        future.cancel()


def _end(traced: Span, sent: asyncio.Future[PubAck]) -> None:
    if sent.cancelled() or sent.exception() is not None:
        traced.fail("not acknowledged")
    traced.end()


def _fault_of(found: StreamConfig, wanted: StreamConfig) -> str | None:
    """What keeps a stream from storing events. Whatever else of it differs is for its keeper."""
    missing = sorted(set(wanted.subjects or ()) - set(found.subjects or ()))
    return f"the stream {STREAM} does not take {', '.join(missing)}" if missing else None
