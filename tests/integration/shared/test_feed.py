"""The feed reads only while somebody listens, and whoever comes back misses nothing."""

from collections.abc import Sequence
from contextlib import aclosing

from shared.contracts.events import STREAM
from shared.messaging.feed import Feed, FeedEvent
from shared.messaging.stream_reader import Position, StoredEvent, StreamReader
from tests.support.harness import Harness, eventually, running

CHANNEL = frozenset({"all"})


async def test_what_comes_while_nobody_listens_is_read_by_who_comes_back(harness: Harness) -> None:
    seconds = 0.0
    read: list[int] = []
    own = f"gpudev.v1.{harness.name}."

    async def assign(stored: Sequence[StoredEvent]) -> Sequence[FeedEvent]:
        read.extend(event.sequence for event in stored if event.subject.startswith(own))
        return [FeedEvent(one.position, CHANNEL, one.body) for one in stored if one.subject.startswith(own)]

    feed = Feed(harness.broker, assign, stopwatch=lambda: seconds)

    async def listen(after: Position, count: int) -> Sequence[FeedEvent]:
        heard: list[FeedEvent] = []
        async with aclosing(feed.events(CHANNEL, after, quiet_seconds=5)) as events:
            async for found in events:
                if isinstance(found, list):
                    heard += found
                if len(heard) >= count:
                    break
        return heard

    async with running(harness.relay.loop.run, feed.loop.run):
        begun = await feed.begun()
        await harness.publish("one", 1)
        first = await listen(begun, 1)
        seconds += 60
        # a turn that finds nobody
        await eventually(lambda: not feed.reading, "nothing is read any more")
        read.clear()
        for version in range(2, 6):
            await harness.publish("one", version)
        await eventually(harness.all_published, "they are out")
        assert not read
        rest = await listen(first[-1].position, 4)

    assert len({event.position.sequence for event in (*first, *rest)}) == 5
    assert [event.position.sequence for event in rest] == sorted(event.position.sequence for event in rest)


async def test_a_place_in_a_stream_that_was_lost_is_none_in_the_stream_after_it(harness: Harness) -> None:
    """What was before it in the one may be after it in the other, even where the event itself is at the same place."""
    reader, streams = StreamReader(harness.broker), harness.broker.jetstream

    async def put_first() -> StoredEvent:
        await reader.bounds()
        await streams.publish(f"gpudev.v1.{harness.name}.told.one", b"{}", headers={"Nats-Msg-Id": "one"})
        stored = await reader.find(1)
        assert stored is not None
        return stored

    lost = await put_first()
    assert await reader.holds(lost.position)
    await streams.delete_stream(STREAM)
    after = await put_first()
    assert (after.sequence, after.body) == (lost.sequence, lost.body)
    assert await reader.holds(after.position)
    assert not await reader.holds(lost.position)
    assert await reader.holds(Position(1, after.former_mark)), "ids that releases before have given go on"
