"""Events over HTTP: whose they are, in which order, and what becomes of them when anything is restarted."""

import asyncio
import os
import re
import signal
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from itertools import islice
from pathlib import Path
from uuid import uuid4

import httpx
import msgspec
import pytest

from gpudev.client import AsyncClient, Client
from gpudev.models import Event
from services.jobs.domain.event_channels import Topic
from services.jobs.operations import stream_events
from services.jobs.operations.stream_events import EventReader, Owners
from shared.contracts.auth import Identity, KeyRevoked
from shared.contracts.capacity import AvailabilityChanged, JobQueued
from shared.contracts.disks import DiskReleased
from shared.contracts.events import STREAM, CloudEvent, EventData, event_subject
from shared.errors import BrokerUnavailable
from shared.messaging.outbox import oldest_unpublished
from shared.messaging.stream_reader import Position, StoredEvent
from tests.support.event_streams import Follower, expiring, following, jobs_replica, keys_checked, sent, tell
from tests.support.harness import eventually, running
from tests.support.jobs import JobsWorld, body, later
from tests.support.promises import promised
from tests.support.replica import Replica
from tests.support.servers import NatsServer

Starts = Callable[..., Replica]


@pytest.fixture
async def world(jobs_without_cluster: JobsWorld) -> AsyncIterator[JobsWorld]:
    async with keys_checked(jobs_without_cluster):
        yield jobs_without_cluster


@pytest.fixture
async def start(world: JobsWorld, tmp_path: Path) -> AsyncIterator[Starts]:
    """Starts a replica of jobs; settings by name."""
    made: list[Replica] = []

    def make(**settings: str) -> Replica:
        replica = jobs_replica(world, tmp_path / f"jobs-{len(made)}.log", **settings)
        made.append(replica)
        replica.start()
        return replica

    yield make
    for replica in made:
        await asyncio.to_thread(replica.kill)


@pytest.fixture
async def replica(start: Starts) -> Replica:
    return await asyncio.to_thread(start)


def ids(follower: Follower) -> list[str]:
    return [event["id"] for event in follower.events]


async def test_a_users_stream_is_what_their_outbox_has(world: JobsWorld, replica: Replica) -> None:
    alice = world.people.bearer("alice")
    async with (
        httpx.AsyncClient(base_url=replica.url, headers=alice, trust_env=False, timeout=60) as client,
        following(replica.url, alice) as follower,
    ):
        job_id = (await client.post("/v1/jobs/submit", json=body())).json()["job_id"]
        await client.post(f"/v1/jobs/{job_id}/cancel")
        events = await sent(follower, 3)
    assert follower.head["content-type"] == "text/event-stream; charset=utf-8"
    assert follower.head["cache-control"] == "no-store"
    recorded = await world.events(job_id)
    assert [(event["id"], event["sequence"], event["type"]) for event in events] == [
        (str(event.id), event.sequence, event.type) for event in recorded
    ]
    assert events[0]["specversion"] == "1.0"
    assert events[0]["data"]["job_id"] == job_id


async def test_one_hears_of_ones_own_jobs_and_disks_and_of_the_cluster_only_when_asked(
    world: JobsWorld, replica: Replica
) -> None:
    alice, bob = world.people.bearer("alice"), world.people.bearer("bob")
    disk = {"disk_name": "data", "job_id": uuid4(), "released_at": later()}
    free = AvailabilityChanged(gpu_type="h100", total=8, available=8, in_use=0, queued=0)
    async with (
        following(replica.url, alice) as own,
        following(replica.url, bob, "/v1/events?topics=disks,cluster") as others,
        following(replica.url, world.people.bearer("olga"), "/v1/events?user=*&topics=jobs,cluster") as everybodys,
        following(replica.url, world.people.bearer("olga")) as operators_own,
    ):
        job_id = await tell(world, 1, 1)
        await world.publish(DiskReleased(disk_id=uuid4(), user_id=1, **disk), sequence=2)
        await world.publish(DiskReleased(disk_id=uuid4(), user_id=2, **disk), sequence=3)
        await world.publish(JobQueued(job_id=job_id, gpu_type="h100", position=1), sequence=4)
        await world.publish(free, sequence=5)
        await tell(world, 2, 1, first=6)
        await sent(own, 3)
        await sent(others, 2)
        await sent(everybodys, 4)
        await tell(world, 3, 1, first=7)
        await sent(operators_own, 1)
    assert own.numbers() == [1, 2, 4]
    assert others.numbers() == [3, 5]
    assert everybodys.numbers()[:4] == [1, 4, 5, 6]
    assert operators_own.numbers() == [7]


async def test_capacitys_events_find_the_owner_in_the_table_when_nothing_else_says_it(
    world: JobsWorld, start: Starts
) -> None:
    alice = world.people.bearer("alice")
    async with world.service() as client:
        job_id = await world.submit(client)
        await eventually(lambda: published(world), "its event is out")
    replica = await asyncio.to_thread(start)
    async with following(replica.url, alice) as follower:
        await world.publish(JobQueued(job_id=job_id, gpu_type="h100", position=3), sequence=1)
        assert (await sent(follower, 1))[0]["data"]["position"] == 3


async def published(world: JobsWorld) -> bool:
    return await oldest_unpublished(world.database) is None


async def test_after_a_break_the_rest_comes_from_any_replica_under_the_same_ids(
    world: JobsWorld, start: Starts
) -> None:
    alice = world.people.bearer("alice")
    first = await asyncio.to_thread(start)
    async with following(first.url, alice) as follower:
        job_id = await tell(world, 1, 3)
        await sent(follower, 3)
        taken = follower.last_id
    await tell(world, 1, 3, first=4, job_id=job_id)
    await tell(world, 2, 1)
    # it has read none of them itself
    second = await asyncio.to_thread(start)
    for url in (first.url, second.url):
        async with following(url, alice, last_id=taken) as again:
            await sent(again, 3)
            await tell(world, 2, 1)
            assert again.numbers() == [4, 5, 6]
    async with following(first.url, alice, last_id=taken) as here, following(second.url, alice, last_id=taken) as there:
        await sent(here, 3)
        await sent(there, 3)
        assert (ids(here), here.last_id) == (ids(there), there.last_id)


async def test_more_events_than_are_read_at_once_come_in_order(world: JobsWorld, start: Starts) -> None:
    alice = world.people.bearer("alice")
    first = await asyncio.to_thread(start)
    async with following(first.url, alice) as live:
        taken = live.last_id
        await tell(world, 1, 300)
        await sent(live, 300)
    second = await asyncio.to_thread(start)
    async with following(second.url, alice, last_id=taken) as late:
        await sent(late, 300)
        await tell(world, 1, 1, first=301)
        await sent(late, 301)
    assert live.numbers() == list(range(1, 301))
    assert late.numbers() == list(range(1, 302))


async def test_a_jobs_stream_begins_with_its_first_event_and_has_no_others(world: JobsWorld, replica: Replica) -> None:
    alice = world.people.bearer("alice")
    async with world.service() as client:
        job_id = await world.submit(client)
        other = await world.submit(client)
        await client.post(f"/v1/jobs/{job_id}/cancel")
        await eventually(lambda: published(world), "their events are out")
    await world.publish(JobQueued(job_id=other, gpu_type="h100", position=3), sequence=1)
    await world.publish(JobQueued(job_id=job_id, gpu_type="h100", position=3), sequence=1)
    async with following(replica.url, alice, f"/v1/jobs/{str(job_id)[:8]}/events") as follower:
        recorded = [str(event.id) for event in await world.events(job_id)]
        await sent(follower, len(recorded) + 1)
        assert ids(follower)[:-1] == recorded
        await world.publish(expiring(job_id, 1), sequence=90)
        await sent(follower, len(recorded) + 2)
    assert {event["subject"] for event in follower.events} == {str(job_id)}
    async with following(
        replica.url, world.people.bearer("olga"), f"/v1/jobs/{job_id}/events", last_id=follower.last_id
    ) as operators:
        await world.publish(expiring(job_id, 1), sequence=91)
        await sent(operators, 1)
    assert operators.numbers() == [91]


@pytest.mark.parametrize(
    ("who", "path", "last_id", "status"),
    [
        ("bob", "/v1/jobs/{job_id}/events", None, 404),
        ("olga", "/v1/jobs/00000000-0000-4000-8000-000000000000/events", None, 404),
        ("olga", "/v1/jobs/nonsense/events", None, 404),
        ("alice", "/v1/events?topics=keys", None, 400),
        ("alice", "/v1/events?topics=", None, 400),
        ("alice", "/v1/events", "42", 400),
        ("alice", "/v1/events", "ä" * 22, 400),
        ("alice", "/v1/events?user=bob", None, 403),
        ("alice", "/v1/events?user=*", None, 403),
        ("olga", "/v1/events?user=nobody-of-this-name", None, 404),
    ],
)
async def test_what_cannot_be_followed_is_refused(
    world: JobsWorld, who: str, path: str, last_id: str | None, status: int
) -> None:
    async with world.service(who) as client, world.service("alice") as alice:
        job_id = await world.submit(alice)
        headers = {} if last_id is None else {"Last-Event-ID": last_id.encode()}
        answer = await client.get(path.format(job_id=job_id), headers=headers)
    assert answer.status_code == status, answer.text


async def test_a_client_whose_last_event_is_not_kept_any_more_is_told_to_read_again(
    world: JobsWorld, replica: Replica
) -> None:
    alice = world.people.bearer("alice")
    async with following(replica.url, alice) as follower:
        job_id = await tell(world, 1, 1)
        await sent(follower, 1)
        taken = follower.last_id
    await tell(world, 1, 2, first=2, job_id=job_id)
    jetstream = world.broker.jetstream
    last = (await jetstream.stream_info(STREAM)).state.last_seq
    await jetstream.purge_stream(STREAM, seq=last)
    await asyncio.to_thread(replica.restart)
    async with following(replica.url, alice, last_id=taken) as again:
        await sent(again, 1)
    assert again.numbers() == [3]
    assert [kind for kind, _ in again.controls] == ["resync"]
    async with following(replica.url, alice, last_id=again.last_id) as once_more:
        await tell(world, 1, 1, first=4, job_id=job_id)
        await sent(once_more, 1)
    assert (once_more.numbers(), once_more.controls) == ([4], [])


async def test_a_deleted_message_is_no_gap_that_stops_the_stream(world: JobsWorld, replica: Replica) -> None:
    alice = world.people.bearer("alice")
    async with following(replica.url, alice) as follower:
        taken = follower.last_id
        job_id = await tell(world, 1, 5)
        await sent(follower, 5)
        last = (await world.broker.jetstream.stream_info(STREAM)).state.last_seq
        await world.broker.jetstream.delete_msg(STREAM, last - 2)
    await asyncio.to_thread(replica.restart)
    async with following(replica.url, alice, last_id=taken) as again:
        await sent(again, 4)
        await tell(world, 1, 1, first=6, job_id=job_id)
        await sent(again, 5)
    assert again.numbers() == [1, 2, 4, 5, 6]


async def test_streams_go_on_over_a_restart_of_the_broker(
    world: JobsWorld, replica: Replica, nats_server: NatsServer
) -> None:
    alice = world.people.bearer("alice")
    async with following(replica.url, alice) as follower:
        job_id = await tell(world, 1, 2)
        await sent(follower, 2)
        nats_server.process.restart()
        await eventually(lambda: is_back(world), "the broker is back")
        await tell(world, 1, 2, first=3, job_id=job_id)
        await sent(follower, 4)
    assert follower.numbers() == [1, 2, 3, 4]


async def is_back(world: JobsWorld) -> bool:
    try:
        await world.broker.ask()
    except BrokerUnavailable:
        return False
    return True


async def test_a_stream_that_was_lost_is_told_again_and_ids_of_the_lost_one_are_still_good(
    world: JobsWorld, replica: Replica, nats_server: NatsServer
) -> None:
    alice = world.people.bearer("alice")
    async with (
        httpx.AsyncClient(base_url=replica.url, headers=alice, trust_env=False, timeout=30) as client,
        following(replica.url, alice) as follower,
    ):
        first = (await client.post("/v1/jobs/submit", json=body())).json()["job_id"]
        await sent(follower, 1)
        taken = follower.last_id
        nats_server.wipe_store()
        nats_server.process.start()
        await eventually(lambda: is_back(world), "the broker is back")
        second = (await client.post("/v1/jobs/submit", json=body())).json()["job_id"]

        def both() -> bool:
            return {first, second} <= {event["subject"] for event in follower.events}

        await eventually(both, "the second job")
        wanted = {str(event.id) for job_id in (first, second) for event in await world.events(job_id)}
        await eventually(lambda: set(ids(follower)) >= wanted, "every event")
    assert set(ids(follower)) == wanted
    async with following(replica.url, alice, last_id=taken) as again:
        await eventually(lambda: set(ids(again)) == wanted, "all that the new stream has")


async def test_the_answer_ends_with_its_key_and_says_why(world: JobsWorld, replica: Replica) -> None:
    alice = world.people.bearer("alice")
    async with following(replica.url, alice) as follower:
        del world.people.keys["alice"]
        with promised(8):
            await eventually(lambda: follower.ended, "the end")
    assert [kind for kind, _ in follower.controls] == ["end"]
    assert "revoked" in follower.controls[0][1]["reason"]


async def test_the_answer_ends_when_its_replica_goes_and_goes_on_at_another(world: JobsWorld, start: Starts) -> None:
    alice = world.people.bearer("alice")
    first, second = await asyncio.to_thread(start), await asyncio.to_thread(start)
    async with following(first.url, alice) as follower:
        job_id = await tell(world, 1, 1)
        await sent(follower, 1)
        os.kill(first.pid, signal.SIGTERM)
        await eventually(lambda: follower.ended, "the end")
    assert follower.controls == []
    await tell(world, 1, 1, first=2, job_id=job_id)
    async with following(second.url, alice, last_id=follower.last_id) as again:
        await sent(again, 1)
    assert again.numbers() == [2]


async def test_one_user_follows_a_bounded_number_of_times(world: JobsWorld, start: Starts) -> None:
    replica = await asyncio.to_thread(start, GPUDEV_MAX_EVENT_STREAMS="1")
    alice, bob = world.people.bearer("alice"), world.people.bearer("bob")
    async with following(replica.url, alice):
        async with httpx.AsyncClient(base_url=replica.url, headers=alice, trust_env=False, timeout=60) as client:
            answer = await client.get("/v1/events")
        assert (answer.status_code, answer.headers["retry-after"]) == (429, "10")
        async with following(replica.url, bob):
            pass
    await eventually(lambda: nobody_follows(replica), "the replica has seen that they have gone")
    async with following(replica.url, alice):
        pass


async def nobody_follows(replica: Replica) -> bool:
    return await metric(replica, "gpudev_event_listeners") == 0.0


async def test_a_client_that_takes_nothing_is_cut_off_and_gets_the_rest_when_it_comes_back(
    world: JobsWorld, replica: Replica
) -> None:
    alice = world.people.bearer("alice")
    url = httpx.URL(replica.url)
    slow = socket.create_connection((url.host, url.port))
    slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)
    reader, writer = await asyncio.open_connection(sock=slow, limit=1024)
    head = f"Host: a\r\nConnection: close\r\nAuthorization: {alice['Authorization']}\r\n\r\n"
    writer.write(f"GET /v1/events HTTP/1.1\r\n{head}".encode())
    try:
        begun = await reader.readuntil(b"\n\n")
    except asyncio.IncompleteReadError as error:
        pytest.fail(f"The stream did not begin: {error.partial!r}")
    # more than the kernel takes in between, and then more than may wait
    job_id, count = uuid4(), 500
    for number in range(1, count + 1):
        await world.publish(expiring(job_id, 1, username="x" * 20_000), sequence=number)

    async def is_cut_off() -> bool:
        return await metric(replica, "gpudev_event_listeners_cut_off_total") == 1.0

    await eventually(is_cut_off, "it is cut off")
    text = re.sub(rb"\r\n[0-9a-f]+\r\n", b"", await asyncio.wait_for(reader.read(-1), 60)).decode()
    writer.close()
    told = re.findall(r"id: (\S+)\ndata: .*\n\n", text)
    assert len(told) < count
    last = told[-1] if told else re.findall(r"\nid: (\S+)\n", begun.decode())[0]
    async with following(replica.url, alice, last_id=last) as again:
        await sent(again, count - len(told))
    assert again.numbers() == list(range(len(told) + 1, count + 1))


async def metric(replica: Replica, name: str) -> float:
    async with httpx.AsyncClient(trust_env=False, timeout=60) as client:
        text = (await client.get(replica.metrics_url)).text
    return next(float(line.rpartition(" ")[2]) for line in text.splitlines() if line.startswith(f"{name} "))


async def test_a_replica_subscribes_once_however_many_follow(world: JobsWorld) -> None:
    reader = EventReader(world.context(), world.broker)
    alice = Identity(user_id=1, username="alice", key_id="a", expires_at=later(hours=1))
    async with running(reader.feed.loop.run), AsyncExitStack() as streams:
        await reader.feed._after_connect()
        await reader.feed.begun()
        before = len(world.broker.client._subs)
        for _ in range(5):
            stream = await reader.of_user(alice, [Topic.JOBS], whose=None, last_id=None)
            streams.push_async_callback(stream.aclose)
            assert (await anext(stream)).startswith(b"retry: ")
        assert len(world.broker.client._subs) == before


async def test_no_key_is_in_a_stream(world: JobsWorld, replica: Replica) -> None:
    async with following(
        replica.url, world.people.bearer("olga"), "/v1/events?user=*&topics=jobs,disks,cluster"
    ) as all_:
        await world.publish(
            KeyRevoked(user_id=1, key_id="k", key_prefix="gpudev_k", reason="revoked", dies_at=later()), sequence=1
        )
        await tell(world, 1, 1)
        await sent(all_, 1)
    assert "key_revoked" not in "".join(all_.lines)


def test_a_position_is_one_token_and_back() -> None:
    position = Position(42, b"12345678")
    assert Position.read(position.token) == position


async def test_the_client_goes_on_over_a_restart_of_the_service(world: JobsWorld, replica: Replica) -> None:
    alice = world.people.bearer("alice")["Authorization"].removeprefix("Bearer ")
    job_id = await tell(world, 1, 1)
    taken: list[Event] = []

    async def take(client: AsyncClient) -> None:
        async for event in client.follow_events(topics="jobs"):
            taken.append(event)  # noqa: PERF401 - it has no end

    async with AsyncClient(replica.url, alice) as client:
        following = asyncio.create_task(take(client))
        await eventually(lambda: metric(replica, "gpudev_event_listeners"), "it follows")
        await tell(world, 1, 2, first=2, job_id=job_id)
        await eventually(lambda: len(taken) == 2, "events before")
        await asyncio.to_thread(replica.kill)
        await tell(world, 1, 2, first=4, job_id=job_id)
        await asyncio.to_thread(replica.start)
        await eventually(lambda: len(taken) == 4, "events after")
        following.cancel()
    assert [(event.name, event.sequence, event.subject) for event in taken] == [
        ("jobs.expiring", number, str(job_id)) for number in range(2, 6)
    ]

    def take_two() -> list[Event]:
        with Client(replica.url, alice) as client:
            return list(islice(client.follow_events(last_event_id=taken[1].last_id), 2))

    assert await asyncio.to_thread(take_two) == taken[2:]


async def test_an_owner_who_was_learned_long_ago_hears_of_their_job_beside_new_ones(
    world: JobsWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream_events, "_MAX_OWNERS", 1)  # after 50,000 jobs each new one has an old one forgotten
    owners, old, new = Owners(world.context()), uuid4(), uuid4()
    await owners.assign([stored(expiring(old, 1))])
    # what capacity says of a job does not name its owner, and this one's row is gone by now
    heard = await owners.assign([stored(JobQueued(job_id=old, gpu_type="h100", position=1)), stored(expiring(new, 2))])
    assert [event.channels & {"jobs:1", "jobs:2"} for event in heard] == [{"jobs:1"}, {"jobs:2"}]
    (later_on,) = await owners.assign([stored(JobQueued(job_id=old, gpu_type="h100", position=2))])
    assert "jobs:1" not in later_on.channels


def stored(data: EventData) -> StoredEvent:
    event = CloudEvent(
        id=uuid4(),
        source=f"/gpudev/{data.DOMAIN}",
        type=data.type_name(),
        subject=data.entity_id,
        time=later(),
        sequence=1,
        messageid=1,
        data=msgspec.Raw(msgspec.json.encode(data)),
    )
    return StoredEvent(1, event_subject(data), b"", b"", msgspec.json.encode(event))
