"""Who may say what on NATS: a table of users and subjects over everything in the contracts, and the attacks on it."""

import importlib
import pkgutil
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any
from uuid import uuid4

import nats
import nats.errors
import pytest
from nats.aio.client import Client
from nats.js.api import ConsumerConfig, StreamConfig
from nats.js.errors import APIError, NoStreamResponseError, NotFoundError

from deploy.local.broker import TOOLS_USER
from shared import contracts
from shared.contracts.audit import audit_subject
from shared.contracts.auth import VERIFY_SUBJECT
from shared.contracts.events import DEAD_LETTER_ROOT, STREAM, SUBJECT_ROOT, EventData
from shared.contracts.health import health_subject
from shared.routes import SERVICES
from shared.web.docs import openapi_subject
from tests.support.harness import eventually, flushed, nats_client
from tests.support.servers import NatsServer

USERS = (*SERVICES, TOOLS_USER)
ASKED_BY = {
    "gpudev.rpc.auth.verify": {"jobs", "disks", "capacity"},
    "gpudev.rpc.disks.claim": {"jobs"},
    "gpudev.rpc.disks.content": {"jobs"},
    "gpudev.rpc.capacity.explain": {"jobs"},
    "gpudev.rpc.capacity.unplaced": {"jobs"},
    "gpudev.rpc.capacity.zone": {"disks"},
    **{audit_subject(service): {"auth"} for service in SERVICES},
    **{subject(service): set(SERVICES) for service in SERVICES for subject in (health_subject, openapi_subject)},
}
"""Every RPC subject, and the services that may ask there."""


def contract_modules() -> list[Any]:
    return [
        importlib.import_module(f"{contracts.__name__}.{found.name}")
        for found in pkgutil.iter_modules(contracts.__path__)
    ]


def rpc_subjects() -> set[str]:
    return {
        value
        for module in contract_modules()
        for name, value in vars(module).items()
        if name.endswith("_SUBJECT") and isinstance(value, str)
    }


def events() -> list[type[EventData]]:
    names = {module.__name__ for module in contract_modules()}
    found, queue = [], [EventData]
    while queue:
        for one in queue.pop().__subclasses__():
            queue.append(one)
            if "EVENT" in vars(one) and one.__module__ in names:
                found.append(one)
    return sorted(found, key=lambda one: one.type_name())


def answering(reply: bytes) -> Callable[[Any], Awaitable[None]]:
    async def answer(message: Any) -> None:
        await message.respond(reply)

    return answer


def owner(subject: str) -> str:
    return subject.split(".")[2]


class User:
    def __init__(self, name: str) -> None:
        self.name = name
        self.client = Client()
        self.refusals: list[str] = []

    async def note(self, error: Exception) -> None:
        self.refusals.append(str(error).lower())

    async def may_publish(self, subject: str) -> bool:
        """Whether the server takes it; the stream does not, by the header."""
        return await self._taken(self.client.publish(subject, b"", headers={"Nats-Expected-Stream": "none"}))

    async def may_subscribe(self, subject: str) -> bool:
        return await self._taken(self.client.subscribe(subject))

    async def _taken(self, sending: Awaitable[Any]) -> bool:
        self.refusals.clear()
        await sending
        await flushed(self.client)  # refusals come in the order of what was sent
        return not any("permissions violation" in refusal for refusal in self.refusals)


@asynccontextmanager
async def connected(server: NatsServer, name: str) -> AsyncIterator[User]:
    user = User(name)
    url = server.tools_url if name == TOOLS_USER else server.broker.url(name)
    prefix = f"_INBOX.{name}" if name in SERVICES else "_INBOX"
    await user.client.connect(url, error_cb=user.note, inbox_prefix=prefix)
    try:
        yield user
    finally:
        await user.client.close()


@pytest.fixture(params=USERS)
async def user(request: pytest.FixtureRequest, nats_server: NatsServer) -> AsyncIterator[User]:
    async with connected(nats_server, request.param) as one:
        yield one


@pytest.fixture
async def disks(nats_server: NatsServer) -> AsyncIterator[User]:
    async with connected(nats_server, "disks") as one:
        yield one


@pytest.fixture
async def tools(nats_server: NatsServer) -> AsyncIterator[User]:
    async with connected(nats_server, TOOLS_USER) as one:
        yield one


@pytest.fixture
async def operator(nats_server: NatsServer) -> AsyncIterator[Client]:
    async with nats_client(nats_server.url) as client:
        yield client


def test_every_rpc_subject_of_the_contracts_has_its_row() -> None:
    of_each = (health_subject, openapi_subject, audit_subject)
    services = {subject(service) for service in SERVICES for subject in of_each}
    assert set(ASKED_BY) == rpc_subjects() | services


async def test_a_service_publishes_its_own_events_and_nobody_elses(user: User) -> None:
    assert len(events()) > 30
    told = {
        event.subject_filter().replace("*", "x"): await user.may_publish(event.subject_filter().replace("*", "x"))
        for event in events()
    }
    assert told == {subject: owner(subject) == user.name for subject in told}


async def test_a_service_asks_only_what_it_needs(user: User) -> None:
    told = {subject: await user.may_publish(subject) for subject in ASKED_BY}
    assert told == {subject: user.name in askers for subject, askers in ASKED_BY.items()}


async def test_a_service_answers_its_own_rpc_and_nobody_elses(user: User) -> None:
    told = {subject: await user.may_subscribe(subject) for subject in ASKED_BY}
    assert told == {subject: owner(subject) == user.name for subject in ASKED_BY}


async def test_everybody_hears_every_event(user: User) -> None:
    assert [event for event in events() if not await user.may_subscribe(event.subject_filter())] == []
    assert await user.may_subscribe(f"{SUBJECT_ROOT}.>")


async def test_nobody_hears_everything(user: User) -> None:
    wide = [">", "*", "$SYS.>", "gpudev.>", "gpudev.rpc.>", "gpudev.*.>", "$JS.>", "$JS.API.>", "$JS.ACK.>"]
    assert [subject for subject in wide if await user.may_subscribe(subject)] == []


async def test_a_service_is_answered_in_its_own_inbox_alone(user: User) -> None:
    inboxes = {f"_INBOX.{name}.x": name for name in SERVICES}
    if user.name in SERVICES:
        heard = {name for inbox, name in inboxes.items() if await user.may_subscribe(inbox)}
        assert heard == {user.name}
        assert not await user.may_subscribe("_INBOX.>")
        assert not await user.may_subscribe("_INBOX.*.x")
    assert [inbox for inbox in inboxes if await user.may_publish(inbox)] == []


@pytest.mark.parametrize("action", ["CONSUMER.CREATE", "CONSUMER.INFO", "CONSUMER.DELETE", "CONSUMER.MSG.NEXT"])
async def test_a_service_works_its_own_consumer_alone(nats_server: NatsServer, action: str) -> None:
    for name in SERVICES:
        async with connected(nats_server, name) as service:
            told = {other: await service.may_publish(f"$JS.API.{action}.{STREAM}.{other}") for other in SERVICES}
            acks = {other: await service.may_publish(f"$JS.ACK.{STREAM}.{other}.1.1.1.1.1") for other in SERVICES}
        own = {other: other == name and name != "auth" for other in SERVICES}
        assert (told, acks) == (own, own), name


async def test_nobody_deletes_or_empties_the_stream_and_auth_alone_changes_it(user: User) -> None:
    actions = ("UPDATE", "DELETE", "PURGE", "MSG.DELETE", "SNAPSHOT", "RESTORE")
    allowed = [action for action in actions if await user.may_publish(f"$JS.API.STREAM.{action}.{STREAM}")]
    assert allowed == (["UPDATE"] if user.name == "auth" else [])
    assert not await user.may_publish("$JS.API.STREAM.CREATE.OTHER")
    assert not await user.may_publish(f"$JS.API.CONSUMER.PAUSE.{STREAM}.jobs")


async def test_dead_letters_are_told_by_whose_they_are(user: User) -> None:
    told = {name: await user.may_publish(f"{DEAD_LETTER_ROOT}.{name}.gpudev.v1.x") for name in SERVICES}
    assert told == {name: name == user.name for name in SERVICES}


async def test_no_tool_reaches_the_way_of_the_copy(tools: User) -> None:
    for subject in ("gpudev.origin.CONSUMER.CREATE.GPUDEV", "gpudev.tools.STREAM.UPDATE.GPUDEV", "gpudev.copy.M.x"):
        assert not await tools.may_publish(subject)
        assert not await tools.may_subscribe(subject)


async def test_another_service_cannot_answer_for_auth(disks: User, nats_server: NatsServer) -> None:
    """Who answers `auth.verify` is anybody that it says."""
    heard: list[bytes] = []

    async def spoof(message: Any) -> None:
        heard.append(message.data)
        await message.respond(b'{"identity":{"user_id":1,"username":"root","key_id":"x","is_operator":true}}')

    await disks.client.subscribe(VERIFY_SUBJECT, cb=spoof)
    await disks.client.subscribe(VERIFY_SUBJECT, queue="q", cb=spoof)
    await flushed(disks.client)
    async with connected(nats_server, "jobs") as jobs:
        with pytest.raises(nats.errors.NoRespondersError):
            await jobs.client.request(VERIFY_SUBJECT, b"{}", timeout=60)
    assert heard == []


async def test_a_service_answers_only_what_it_was_asked(disks: User, nats_server: NatsServer) -> None:
    async with connected(nats_server, "jobs") as jobs:
        inbox = jobs.client.new_inbox()
        replies = await jobs.client.subscribe(inbox)
        await flushed(jobs.client)
        assert not await disks.may_publish(inbox)
        await disks.client.subscribe("gpudev.rpc.disks.claim", cb=answering(b"mine"))
        await flushed(disks.client)
        await jobs.client.publish("gpudev.rpc.disks.claim", b"", reply=inbox)
        assert (await replies.next_msg(timeout=60)).data == b"mine"


@pytest.mark.usefixtures("stream_kept")
async def test_a_tool_cannot_touch_the_consumer_of_a_service(tools: User, operator: Client) -> None:
    services = operator.jetstream()
    wanted = ConsumerConfig(durable_name="capacity", filter_subjects=["gpudev.v1.jobs.*.*"], ack_policy="explicit")  # type: ignore[arg-type]
    before = await services.add_consumer(STREAM, wanted)
    theirs = tools.client.jetstream()
    subject = f"gpudev.v1.jobs.started.{uuid4()}"
    await services.publish(subject, b"an event")

    # each of them is taken, in the tools' own account
    await theirs.add_consumer(STREAM, ConsumerConfig(durable_name="capacity", filter_subject="gpudev.v1.none"))
    await theirs.delete_consumer(STREAM, "capacity")
    pull = await theirs.pull_subscribe(subject, durable="capacity", stream=STREAM)
    (swallowed,) = await pull.fetch(1, timeout=60)
    await swallowed.ack_sync()

    after = await services.consumer_info(STREAM, "capacity")
    assert after.config == before.config
    assert after.created == before.created
    mine = await services.pull_subscribe_bind(durable="capacity", stream=STREAM)
    assert [message.data for message in await mine.fetch(1, timeout=60)] == [b"an event"]


@pytest.mark.usefixtures("stream_kept")
async def test_a_tool_cannot_change_or_empty_the_stream_or_its_copy(tools: User, operator: Client) -> None:
    await operator.jetstream().publish(f"gpudev.v1.jobs.started.{uuid4()}", b"an event")
    theirs = tools.client.jetstream(timeout=0.5)
    attacks: list[Callable[[], Awaitable[Any]]] = [
        lambda: theirs.delete_stream(STREAM),
        lambda: theirs.purge_stream(STREAM),
        lambda: theirs.update_stream(StreamConfig(name=STREAM, max_msgs=1)),
        lambda: theirs.delete_msg(STREAM, 1),
        lambda: theirs.add_stream(StreamConfig(name="OTHER", subjects=["x"])),
    ]
    for attack in attacks:
        with pytest.raises((nats.errors.Error, APIError, TimeoutError)):
            await attack()
    assert (await operator.jetstream().stream_info(STREAM)).state.messages > 0
    assert (await tools.client.jetstream().stream_info(STREAM)).state.messages > 0


async def test_a_tool_hears_no_reply_of_a_service(tools: User, nats_server: NatsServer) -> None:
    everything = await tools.client.subscribe("_INBOX.>")
    await flushed(tools.client)
    async with connected(nats_server, "jobs") as jobs, connected(nats_server, "auth") as auth:
        await auth.client.subscribe(VERIFY_SUBJECT, cb=answering(b"an identity"))
        await flushed(auth.client)
        assert (await jobs.client.request(VERIFY_SUBJECT, b"{}", timeout=60)).data == b"an identity"
    await flushed(tools.client)
    assert everything.pending_msgs == 0


@pytest.mark.usefixtures("stream_kept")
async def test_a_stream_that_somebody_changed_is_put_right(operator: Client) -> None:
    services = operator.jetstream()
    config = (await services.stream_info(STREAM)).config
    await services.update_stream(config.evolve(max_age=3600.0))

    async def right() -> bool:
        return bool((await services.stream_info(STREAM)).config.max_age == config.max_age)

    await eventually(right, "put right")


@pytest.mark.usefixtures("stream_kept")
async def test_the_copy_follows_a_stream_that_was_made_anew(tools: User, operator: Client) -> None:
    for number in range(10):
        await operator.jetstream().publish(f"gpudev.v1.none.old.{number}", b"of the lost stream")
    await operator.jetstream().delete_stream(STREAM)

    async def copied() -> bool:
        with suppress(APIError, NoStreamResponseError):
            await operator.jetstream().publish("gpudev.v1.none.new.1", b"of the new one")
        try:
            last = await tools.client.jetstream().get_last_msg(STREAM, "gpudev.v1.none.new.1")
        except NotFoundError:
            return False
        return last.data == b"of the new one"

    await eventually(copied, "in the copy")
