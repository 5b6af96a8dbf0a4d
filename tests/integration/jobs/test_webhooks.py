"""Webhooks: made, told of events, tried again, in order, whatever dies in between."""

import asyncio
import base64
import dataclasses
import hmac
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, NoReturn
from uuid import uuid4

import httpx
import msgspec
import pytest
import sqlalchemy as sa
from aiohttp import web

from services.jobs.adapters.webhooks import WebhookSender
from services.jobs.consumers import Consumers
from services.jobs.domain.webhook import WebhookFormat, parse_networks
from services.jobs.operations import webhooks as operations
from services.jobs.operations.webhook_messages import Message, next_message, record_messages
from services.jobs.operations.webhooks import create_webhook, unseal_target
from services.jobs.workers.webhooks import WebhookDeliveries
from shared.contracts.capacity import JobQueued
from shared.contracts.disks import DiskRestored
from shared.database import Statement
from shared.messaging import Delivery
from tests.support.crash import Crash, CrashingDatabase, CrashPoints
from tests.support.event_streams import expiring
from tests.support.harness import eventually
from tests.support.http_server import serving
from tests.support.jobs import Client, JobsWorld, later

LOCAL = "127.0.0.0/8, ::1/128"


@pytest.fixture
async def world(jobs_without_cluster: JobsWorld) -> JobsWorld:
    settings = msgspec.structs.replace(jobs_without_cluster.settings, webhook_networks=LOCAL)
    return dataclasses.replace(jobs_without_cluster, settings=settings)


@dataclass
class Receiver:
    """Somebody's server, as it was asked."""

    url: str = ""
    statuses: list[int] = field(default_factory=list)
    """Of the next answers; 200 when there is none left."""
    taken: list[tuple[str, dict[str, str], bytes]] = field(default_factory=list)
    """Id, headers and body of each request that was answered 200."""
    refused: list[str] = field(default_factory=list)
    """Ids of those that were not."""

    @property
    def ids(self) -> list[str]:
        """Of what was taken."""
        return [message_id for message_id, _, _ in self.taken]

    async def answer(self, request: web.Request) -> web.Response:
        """Take it, or not."""
        body = await request.read()
        status = self.statuses.pop(0) if self.statuses else 200
        message_id = request.headers["webhook-id"]
        if status == httpx.codes.OK:
            self.taken.append((message_id, dict(request.headers), body))
        else:
            self.refused.append(message_id)
        return web.Response(status=status, headers={"Location": self.url} if status in {301, 307} else {})


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    receiver = Receiver()
    async with serving(receiver.answer) as url:
        receiver.url = f"{url}/hook"
        yield receiver


async def make(client: Client, url: str, **fields: Any) -> dict[str, Any]:
    answer = await client.post("/v1/webhooks", json={"url": url, **fields})
    assert answer.status_code == 200, answer.text
    made: dict[str, Any] = answer.json()
    return made


async def details(client: Client, webhook_id: str) -> dict[str, Any]:
    answer = await client.get(f"/v1/webhooks/{webhook_id}")
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def test_a_webhook_is_told_what_it_asks_for_and_signed_with_its_secret(
    world: JobsWorld, receiver: Receiver
) -> None:
    async with world.service() as client, world.service("bob") as bob:
        made = await make(client, receiver.url, types=["jobs.submitted", "jobs.ended", "disks.restored"])
        await make(bob, receiver.url, types=["jobs.extended"])
        job_id = await world.submit(client)
        await client.post(f"/v1/jobs/{job_id}/cancel")
        await world.submit(bob)
        disk = DiskRestored(disk_id=uuid4(), user_id=1, disk_name="data", operation_id=uuid4())
        disk_event = await world.publish(disk, sequence=1)
        await eventually(lambda: len(receiver.taken) >= 3, "three messages")
        await eventually(lambda: all_settled(client, made["webhook_id"]), "that it is written down of each")
        shown = await details(client, made["webhook_id"])
        listed = (await client.get("/v1/webhooks")).json()["webhooks"]
    events = {str(event.id): event for event in await world.events(job_id)}
    types = {message_id: msgspec.json.decode(body)["type"] for message_id, _, body in receiver.taken}
    assert sorted(types.values()) == [
        "dev.gpudev.disks.restored.v1",
        "dev.gpudev.jobs.ended.v1",
        "dev.gpudev.jobs.submitted.v1",
    ]
    assert set(types) <= {*events, str(disk_event)}
    for message_id, headers, body in receiver.taken:
        key = base64.b64decode(made["secret"].removeprefix("whsec_"))
        signed = f"{message_id}.{headers['webhook-timestamp']}.".encode() + body
        wanted = base64.b64encode(hmac.digest(key, signed, "sha256")).decode()
        assert headers["webhook-signature"] == f"v1,{wanted}"
        assert headers["Content-Type"] == "application/json"
    assert "secret" not in shown
    assert [one["webhook_id"] for one in listed] == [made["webhook_id"]]
    assert {message["status"] for message in shown["messages"]} == {"delivered"}
    assert (shown["pending"], shown["parked"]) == (0, 0)


async def test_neither_url_nor_secret_is_in_clear_in_a_table_nor_in_a_log(
    world: JobsWorld, receiver: Receiver, logged: Any
) -> None:
    receiver.statuses = [500]
    async with world.service(log_level="info") as client:
        made = await make(client, f"{receiver.url}/T0/B0/token-of-slack")
        await client.post(f"/v1/webhooks/{made['webhook_id']}/test")
        await eventually(lambda: receiver.refused, "a refusal")
        await eventually(lambda: attempted(client, made["webhook_id"]), "that it is written down")
        assert (await details(client, made["webhook_id"]))["url"].endswith("token-of-slack")
    text = logged()
    for table in ("webhooks", "webhook_deliveries", "outbox", "idempotency_keys"):
        rows = await world.database.fetch_all(Statement(sa.text(f"SELECT * FROM {table}")))
        text += str([dict(row) for row in rows])
    assert "token-of-slack" not in text
    assert made["secret"].removeprefix("whsec_") not in text


async def all_settled(client: Client, webhook_id: str) -> bool:
    """What the receiver has taken is written down a moment later."""
    return bool((await details(client, webhook_id))["pending"] == 0)


async def attempted(client: Client, webhook_id: str, attempts: int = 1) -> bool:
    messages = (await details(client, webhook_id))["messages"]
    return bool(messages) and messages[0]["attempts"] >= attempts


async def test_whoever_looks_at_a_webhook_has_its_url_opened_and_not_what_signs(
    world: JobsWorld, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> NoReturn:
        raise AssertionError("the secret is for who sends messages")

    async with world.service("looker") as client:
        made = await make(client, receiver.url)
        monkeypatch.setattr(operations, "unseal_target", refuse)
        (listed,) = (await client.get("/v1/webhooks")).json()["webhooks"]
        shown = await details(client, made["webhook_id"])
    assert (listed["url"], shown["url"]) == (receiver.url, receiver.url)
    assert "secret" not in listed.keys() | shown.keys()


async def test_only_what_is_about_its_job_is_told(world: JobsWorld, receiver: Receiver) -> None:
    async with world.service() as client:
        job_id, other = await world.submit(client), await world.submit(client)
        await make(client, receiver.url, job_id=str(job_id)[:8], types=["jobs.expiring"])
        await world.publish(expiring(other, 1), sequence=2)
        wanted = await world.publish(expiring(job_id, 1), sequence=2)
        await eventually(lambda: receiver.taken, "the message")
        await world.publish(expiring(other, 1), sequence=3)
        wanted_too = await world.publish(expiring(job_id, 1), sequence=3)
        await eventually(lambda: len(receiver.taken) == 2, "the next")
    assert receiver.ids == [str(wanted), str(wanted_too)]


async def test_that_a_turn_is_near_is_told_once(world: JobsWorld, receiver: Receiver) -> None:
    async with world.service() as client:
        job_id = await world.submit(client)
        await make(client, receiver.url)
        for position in (7, 2, 1, 1):
            await world.capacity_says(JobQueued(job_id=job_id, gpu_type="h100", position=position))
        await eventually(lambda: receiver.taken, "the message")
        await world.publish(expiring(job_id, 1), sequence=2)
        await eventually(lambda: len(receiver.taken) == 2, "the next")
    bodies = [msgspec.json.decode(body) for _, _, body in receiver.taken]
    assert [body["type"] for body in bodies] == ["dev.gpudev.capacity.queued.v1", "dev.gpudev.jobs.expiring.v1"]
    assert bodies[0]["data"]["position"] == 1


async def test_slack_gets_text(world: JobsWorld, receiver: Receiver) -> None:
    async with world.service() as client:
        made = await make(client, receiver.url, format="slack")
        await client.post(f"/v1/webhooks/{made['webhook_id']}/test")
        await eventually(lambda: receiver.taken, "the message")
    assert msgspec.json.decode(receiver.taken[0][2]) == {"text": "GPU Dev can reach this channel"}


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"url": "http://127.0.0.1/"}, "url"),
        ({"url": "http://localhost/"}, "url"),
        ({"url": "http://2130706433/"}, "url"),
        ({"url": "http://[::ffff:169.254.169.254]/"}, "url"),
        ({"url": "http://169.254.169.254/latest/meta-data"}, "url"),
        ({"url": "ftp://example.org"}, "url"),
        ({"url": "https://user:pw@example.org/"}, "url"),
        ({}, "url"),
        ({"url": "https://93.184.215.14/", "types": ["auth.key_issued"]}, "types"),
        ({"url": "https://93.184.215.14/", "types": []}, "types"),
        ({"url": "https://93.184.215.14/", "format": "xml"}, "format"),
        ({"url": "https://93.184.215.14/", "secret": "mine"}, "secret"),
    ],
)
async def test_what_cannot_be_a_webhook_is_refused(world: JobsWorld, body: dict[str, Any], field: str) -> None:
    async with world.service(webhook_networks="") as client:
        answer = await client.post("/v1/webhooks", json=body)
    assert answer.status_code == 400, answer.text
    assert answer.json()["detail"][0]["loc"][:2] == ["body", field]
    assert body.get("url", "x")[9:] not in answer.text or not body.get("url")


async def test_a_webhook_is_its_owners_alone_and_there_is_a_limit(world: JobsWorld, receiver: Receiver) -> None:
    async with world.service(max_webhooks=1) as client, world.service("bob") as bob:
        made = await make(client, receiver.url)
        path = f"/v1/webhooks/{made['webhook_id']}"
        for method, where in (("get", path), ("delete", path), ("post", f"{path}/test"), ("get", "/v1/webhooks/x")):
            answer = await bob.request(method, where)
            assert (answer.status_code, answer.json()) == (404, {"detail": "Webhook not found"})
        assert (await bob.get("/v1/webhooks")).json() == {"webhooks": []}
        assert (await client.post("/v1/webhooks", json={"url": receiver.url})).status_code == 409
        missing = await client.post("/v1/webhooks", json={"url": receiver.url, "job_id": str(uuid4())})
        assert missing.status_code == 404
        assert (await client.delete(path)).json()["message"] == "Webhook deleted"
        assert (await client.delete(path)).status_code == 404
        keyed = {"Idempotency-Key": "k"}
        first = await client.post("/v1/webhooks", json={"url": receiver.url}, headers=keyed)
        again = await client.post("/v1/webhooks", json={"url": receiver.url}, headers=keyed)
    assert (first.json(), again.headers["idempotent-replayed"]) == (again.json(), "true")


# --- sending, step by step: the test is the worker


@dataclass
class Office:
    """What a replica sends with."""

    world: JobsWorld
    deliveries: WebhookDeliveries

    async def take_in(self, *events: Any, sequence: int = 1) -> list[str]:
        """Events take effect, as by the consumer; their ids."""
        delivery = Delivery(Consumers(self.world.context()).subscriptions())
        ids = []
        for number, data in enumerate(events):
            body = await encoded(self.world, data, sequence + number)
            async with self.world.database.transaction() as transaction:
                await delivery.handle(transaction, body, later())
            ids.append(msgspec.json.decode(body)["id"])
        return ids

    async def make_due(self) -> None:
        """Time passes."""
        await self.world.database.execute(
            Statement(sa.text("UPDATE webhook_deliveries SET due_at = now() WHERE status = 'pending'"))
        )
        await self.world.database.execute(Statement(sa.text("UPDATE webhooks SET worked_until = NULL")))


async def encoded(world: JobsWorld, data: Any, sequence: int) -> bytes:
    del world
    return msgspec.json.encode(
        {
            "specversion": "1.0",
            "id": str(uuid4()),
            "source": f"/gpudev/{data.DOMAIN}",
            "type": data.type_name(),
            "subject": data.entity_id,
            "time": later(),
            "sequence": sequence,
            "messageid": 1,
            "data": data,
        }
    )


@asynccontextmanager
async def office(world: JobsWorld, **changes: Any) -> AsyncIterator[Office]:
    context = dataclasses.replace(world.context(), **changes)
    sender = WebhookSender(parse_networks(world.settings.webhook_networks))
    deliveries = WebhookDeliveries(context, sender)
    try:
        yield Office(world, deliveries)
    finally:
        await deliveries.worker.close()
        await sender.close()


async def made_quietly(world: JobsWorld, url: str, **fields: Any) -> str:
    """A webhook that no running replica sends to."""
    outcome = await create_webhook(
        user_id=1,
        url=url,
        types=fields.get("types", ["jobs.expiring"]),
        job_id=None,
        wanted=WebhookFormat.EVENTS,
        key=None,
        now=later(),
        context=world.context(),
        sender=WebhookSender(parse_networks(LOCAL)),
    )
    return str(outcome.answer.id)


async def states(world: JobsWorld) -> list[tuple[str, int, str | None]]:
    rows = await world.database.fetch_all(
        Statement(sa.text("SELECT status, attempts, last_error FROM webhook_deliveries ORDER BY id"))
    )
    return [tuple(row) for row in rows]


async def test_a_refused_message_holds_back_those_about_its_job_and_no_others(
    world: JobsWorld, receiver: Receiver
) -> None:
    await made_quietly(world, receiver.url)
    first, second = uuid4(), uuid4()
    async with office(world) as ours:
        told = await ours.take_in(expiring(first, 1), expiring(first, 1), expiring(second, 1))
        receiver.statuses = [503]
        await ours.deliveries.worker.work_due()
        assert receiver.ids == [told[2]]
        await ours.make_due()
        await ours.deliveries.worker.work_due()
    assert receiver.ids == [told[2], told[0], told[1]]
    assert [(status, attempts) for status, attempts, _ in await states(world)] == [
        ("delivered", 2),
        ("delivered", 1),
        ("delivered", 1),
    ]


@pytest.mark.parametrize(
    ("status", "error"),
    [(301, "it answered 301, and redirects are not followed"), (404, "it answered 404"), (500, "it answered 500")],
)
async def test_only_success_is_success_and_redirects_are_not_followed(
    world: JobsWorld, receiver: Receiver, status: int, error: str
) -> None:
    await made_quietly(world, receiver.url)
    async with office(world) as ours:
        await ours.take_in(expiring(uuid4(), 1))
        receiver.statuses = [status]
        await ours.deliveries.worker.work_due()
    assert receiver.taken == []
    assert await states(world) == [("pending", 1, error)]


async def test_after_a_day_a_message_is_parked_and_shown_and_the_next_one_goes(
    world: JobsWorld, receiver: Receiver
) -> None:
    webhook_id = await made_quietly(world, receiver.url)
    job_id = uuid4()
    async with office(world) as ours:
        _, second = await ours.take_in(expiring(job_id, 1), expiring(job_id, 1))
        receiver.statuses = [500]
        async with office(world, clock=lambda: later(hours=24)) as late:
            await late.deliveries.worker.work_due()
    assert receiver.ids == [second]
    async with world.service() as client:
        shown = await details(client, webhook_id)
    assert (shown["parked"], shown["messages"][0]["status"]) == (1, "parked")
    assert shown["messages"][0]["last_error"] == "it answered 500"
    assert shown["messages"][0]["next_attempt_at"] is None


async def test_a_receiver_that_is_gone_is_not_tried_again(world: JobsWorld, receiver: Receiver) -> None:
    await made_quietly(world, receiver.url)
    async with office(world) as ours:
        await ours.take_in(expiring(uuid4(), 1))
        receiver.statuses = [410]
        await ours.deliveries.worker.work_due()
    assert await states(world) == [("parked", 1, "it answered 410")]


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
async def test_an_address_that_is_no_longer_allowed_is_not_connected_to(
    world: JobsWorld, receiver: Receiver, host: str
) -> None:
    await made_quietly(world, receiver.url.replace("127.0.0.1", host))
    strict = dataclasses.replace(world, settings=msgspec.structs.replace(world.settings, webhook_networks=""))
    async with office(strict) as ours:
        await ours.take_in(expiring(uuid4(), 1))
        await ours.deliveries.worker.work_due()
    assert (receiver.taken, receiver.refused) == ([], [])
    assert await states(world) == [("pending", 1, "its address is not public")]


async def test_two_replicas_do_not_send_one_webhook_at_a_time_nor_twice(world: JobsWorld, receiver: Receiver) -> None:
    await made_quietly(world, receiver.url)
    job_id = uuid4()
    async with office(world) as one, office(world) as two:
        told = await one.take_in(*(expiring(job_id, 1) for _ in range(10)))
        await asyncio.gather(one.deliveries.worker.work_due(), two.deliveries.worker.work_due())
    assert receiver.ids == told


async def test_who_has_lost_the_webhook_writes_nothing(world: JobsWorld, receiver: Receiver) -> None:
    await made_quietly(world, receiver.url)
    async with office(world) as ours:
        await ours.take_in(expiring(uuid4(), 1))
        stale = await ours.deliveries.claim(uuid4(), timedelta(seconds=-1), 10)
        await ours.deliveries.claim(uuid4(), timedelta(seconds=30), 10)
        target = await asyncio.wait_for(sent_by(ours, stale[0]), 60)
    assert target is False
    assert await states(world) == [("pending", 0, None)]


async def sent_by(ours: Office, row: Any) -> bool:
    context = ours.deliveries._context
    delivery = await next_message(webhook=row.webhook, now=later(), context=context)
    assert delivery is not None
    return await ours.deliveries._send(row, unseal_target(row.webhook, context), delivery)


async def test_messages_of_a_disabled_user_are_not_made(world: JobsWorld, receiver: Receiver) -> None:
    await made_quietly(world, receiver.url)
    await world.database.execute(
        Statement(sa.text("INSERT INTO disabled_users (user_id, sequence, jobs_end_at) VALUES (1, 1, now())"))
    )
    async with office(world) as ours:
        await ours.take_in(expiring(uuid4(), 1))
    assert await states(world) == []


async def test_after_a_death_at_any_point_every_message_arrives_in_order(world: JobsWorld, receiver: Receiver) -> None:
    """Around each write of the sender, and before and after each commit."""
    await made_quietly(world, receiver.url)
    at, crashed = 0, True
    while crashed:
        receiver.taken.clear()
        job_id = uuid4()
        async with office(world) as ours:
            told = await ours.take_in(*(expiring(job_id, 1) for _ in range(3)))
            receiver.statuses = [500]
        points = CrashPoints(at)
        database = CrashingDatabase(world.settings.database_url, points)
        async with AsyncExitStack() as dying:
            dying.push_async_callback(database.close)
            doomed = await dying.enter_async_context(office(world, database=database))
            with suppress(Crash):
                await doomed.deliveries.worker.work_due()
            crashed = points.crashed
        async with office(world) as ours:
            for _ in range(3):
                await ours.make_due()
                await ours.deliveries.worker.work_due()
        assert list(dict.fromkeys(receiver.ids)) == told, f"death at {at}"
        assert {status for status, _, _ in await states(world)} == {"delivered"}
        at += 1
    assert at > 3


async def test_an_event_that_comes_again_makes_no_second_message(world: JobsWorld, receiver: Receiver) -> None:
    await made_quietly(world, receiver.url)
    delivery = Delivery(Consumers(world.context()).subscriptions())
    body = await encoded(world, expiring(uuid4(), 1), 1)
    for _ in range(2):
        async with world.database.transaction() as transaction:
            await delivery.handle(transaction, body, later())
    assert len(await states(world)) == 1


async def test_while_nobody_has_a_webhook_messages_are_not_even_made(world: JobsWorld, receiver: Receiver) -> None:
    def messages() -> Iterator[Message]:
        raise LookupError
        yield

    async with world.database.transaction() as transaction:
        await record_messages(transaction, messages(), later())
    await made_quietly(world, receiver.url)
    with pytest.raises(LookupError):
        async with world.database.transaction() as transaction:
            await record_messages(transaction, messages(), later())
