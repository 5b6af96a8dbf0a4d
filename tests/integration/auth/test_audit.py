"""The audit as operators read it: auth's own entries, and those that the other services tell of."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import msgspec
import pytest

from deploy.local.aws import ACCOUNT, DEMO_ROLE
from services.auth.app import create_app
from services.auth.settings import AuthSettings
from shared.audit import Act, audit_endpoint, begin_act, record_act
from shared.contracts.audit import AuditObject, AuditQuery, audit_subject
from shared.database import Database
from shared.messaging import Broker, RpcEndpoint
from shared.messaging.rpc import RpcServer
from tests.integration.auth.test_signed_login import sign
from tests.support.audited import changing_routes
from tests.support.auth import bearer, log_in, logged_in, new_name
from tests.support.harness import eventually, running
from tests.support.servers import MotoServer, NatsServer

OPERATOR = "operator"
OTHERS = ("jobs", "disks", "capacity")


@pytest.fixture
async def others(harness_dsn: str, nats_server: NatsServer) -> AsyncIterator[Database]:
    """The entries of jobs, which answers as disks and capacity do, that have none: under their own rights on NATS."""
    database = Database(harness_dsn, pool_size=3)
    brokers = {name: Broker(nats_server.service_url(name), name=name, inbox=f"_INBOX.{name}") for name in OTHERS}
    for name, broker in brokers.items():
        found = audit_endpoint(database) if name == "jobs" else audit_endpoint(_Nothing())  # type: ignore[arg-type]
        RpcServer(broker=broker, service=name, endpoints=[RpcEndpoint(audit_subject(name), AuditQuery, found)])
    async with running(*(broker.run for broker in brokers.values())):
        yield database
    await database.close()


class _Nothing:
    """A service that nobody has asked for anything."""

    async def fetch_all(self, *_: Any, **__: Any) -> list[Any]:
        """No entry."""
        return []


@pytest.fixture
async def client(real_auth_settings: AuthSettings) -> AsyncIterator[httpx.AsyncClient]:
    operators = f"arn:aws:sts::{ACCOUNT}:assumed-role/{DEMO_ROLE}/{OPERATOR}"
    app: Any = create_app(msgspec.structs.replace(real_auth_settings, operators=operators))
    # in this loop: Litestar's own test client blocks it, and the other services could not answer
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    up, done = asyncio.Event(), asyncio.Event()

    async def live() -> None:
        async with app.lifespan():
            up.set()
            await done.wait()

    living = asyncio.create_task(live())
    await up.wait()
    async with httpx.AsyncClient(transport=transport, base_url="http://auth") as here:
        yield here
    done.set()
    await living


@pytest.fixture
async def operator(client: httpx.AsyncClient, moto_server: MotoServer) -> dict[str, str]:
    return bearer((await logged_in(client, moto_server.identity(OPERATOR)))["api_key"])


async def read(client: httpx.AsyncClient, headers: dict[str, str], **asked: Any) -> dict[str, Any]:
    async def answered() -> Any:
        answer = await client.get("/v1/audit", params=asked, headers=headers)
        return answer.json() if answer.status_code == 200 else None

    return dict(await eventually(answered, "every service answers"))


@pytest.mark.usefixtures("others")
async def test_what_is_done_with_keys_leaves_entries(
    client: httpx.AsyncClient, operator: dict[str, str], moto_server: MotoServer
) -> None:
    name = new_name()
    login = await logged_in(client, moto_server.identity(name), address="198.51.100.7")
    rotated = (await client.post("/v1/keys/rotate", headers=bearer(login["api_key"]))).json()
    own = bearer(rotated["api_key"])
    code = (await client.post("/v1/auth/console-codes", headers=own)).json()["code"]
    console = (await client.post("/v1/auth/console-login", json={"code": code})).json()
    signature = await sign(client, moto_server.identity(name))  # type: ignore[arg-type]
    signed = (await client.post("/v1/auth/aws-signed-login", json=signature)).json()
    await client.delete(f"/v1/keys/{login['key_prefix']}", headers={**own, "X-Forwarded-For": "2001:db8::7"})
    page = await read(client, operator, user=name)
    entries = page["entries"]
    assert [(one["action"], one["object_id"], one["key_prefix"]) for one in entries] == [
        ("revoke_key", login["key_prefix"], rotated["key_prefix"]),
        ("aws_signed_login", signed["key_prefix"], None),
        ("console_login", console["key_prefix"], None),
        ("create_console_code", rotated["key_prefix"], rotated["key_prefix"]),
        ("rotate_key", rotated["key_prefix"], login["key_prefix"]),
        ("aws_login", login["key_prefix"], None),
    ]
    assert [entries[0]["address"], entries[-1]["address"]] == ["2001:db8::7", "198.51.100.7"]
    assert {(one["username"], one["user_id"], one["service"]) for one in entries} == {(name, login["user_id"], "auth")}
    assert page["next"] is None
    assert list(entries[0]) == [
        "at",
        "action",
        "user_id",
        "username",
        "key_prefix",
        "address",
        "object_kind",
        "object_id",
        "object_name",
        "request_id",
        "service",
    ]
    for verb in ("disable", "enable"):
        await client.post(f"/v1/auth/users/{login['user_id']}/{verb}", headers=operator)
    about = (await read(client, operator, object=str(login["user_id"])))["entries"]
    assert [(one["action"], one["username"], one["object_kind"], one["object_name"]) for one in about] == [
        ("enable_user", OPERATOR, "user", name),
        ("disable_user", OPERATOR, "user", name),
    ]
    assert {one["action"] for one in [*entries, *about]} == changing_routes("auth")
    assert not [
        key
        for key in (login["api_key"], rotated["api_key"], console["api_key"], signed["api_key"], code)
        if key in str(page)
    ]


async def test_pages_have_the_entries_of_all_services_once_newest_first(
    client: httpx.AsyncClient, operator: dict[str, str], moto_server: MotoServer, others: Database
) -> None:
    name = new_name()
    now = datetime.now(UTC)
    begin_act(Act(action="cancel_job", username=name, user_id=1))
    for number in range(5):
        await record_act(others, [AuditObject("job", str(number))], now=now - timedelta(seconds=number))
    for _ in range(2):
        await log_in(client, moto_server.identity(name))
    whole = (await read(client, operator, user=name))["entries"]
    assert [(one["service"], one["object_id"]) for one in whole[2:]] == [("jobs", str(n)) for n in range(5)]
    assert {one["service"] for one in whole[:2]} == {"auth"}
    told: list[Any] = []
    asked: dict[str, Any] = {"user": name, "limit": 2}
    while True:
        page = await read(client, operator, **asked)
        told += page["entries"]
        if page["next"] is None:
            break
        asked["before"] = page["next"]
    assert told == whole
    assert (await read(client, operator, user=name, object="3"))["entries"] == [whole[5]]
    assert (await read(client, operator, user=name, since=now.isoformat(), action="cancel_job"))["entries"] == [
        whole[2]
    ]


async def test_while_a_service_does_not_answer_there_is_no_audit(
    client: httpx.AsyncClient, operator: dict[str, str]
) -> None:
    answer = await client.get("/v1/audit", headers=operator)
    assert answer.status_code == 503
    assert "gpudev.rpc." in answer.json()["detail"]


@pytest.mark.parametrize("query", ["since=yesterday", "until=2026-01-20T18:30:00", "before=1", "limit=0", "limit=201"])
async def test_what_cannot_be_asked_is_refused_by_name(
    client: httpx.AsyncClient, operator: dict[str, str], query: str
) -> None:
    answer = await client.get(f"/v1/audit?{query}", headers=operator)
    assert (answer.status_code, answer.json()["detail"][0]["loc"]) == (400, ["query", query.partition("=")[0]])


async def test_nobody_but_operators_reads_it(client: httpx.AsyncClient, moto_server: MotoServer) -> None:
    login = await logged_in(client, moto_server.identity(new_name()))
    answer = await client.get("/v1/audit", headers=bearer(login["api_key"]))
    assert (answer.status_code, answer.json()) == (403, {"detail": "Only operators may read the audit"})
    assert (await client.get("/v1/audit")).status_code == 401


async def test_operators_disable_and_enable_others(
    client: httpx.AsyncClient, operator: dict[str, str], moto_server: MotoServer
) -> None:
    name = new_name()
    login = await logged_in(client, moto_server.identity(name))
    path = f"/v1/auth/users/{login['user_id']}"
    once = {**operator, "Idempotency-Key": new_name()}
    first = await client.post(f"{path}/disable", headers=once)
    assert first.status_code == 200, first.text
    answer = first.json()
    assert (answer["username"], answer["status"], answer["keys_revoked"]) == (name, "disabled", 1)
    assert (await client.post(f"{path}/disable", headers=once)).json() == answer
    again = (await client.post(f"{path}/disable", headers=operator)).json()
    assert (again["disabled_at"], again["keys_revoked"]) == (answer["disabled_at"], 0)
    assert (await client.get("/v1/keys", headers=bearer(login["api_key"]))).status_code == 403
    refused = await log_in(client, moto_server.identity(name))
    assert (refused.status_code, refused.json()) == (403, {"detail": "This user is disabled"})
    enabled = (await client.post(f"{path}/enable", headers=operator)).json()
    assert (enabled["status"], enabled["disabled_at"]) == ("enabled", None)
    assert (await log_in(client, moto_server.identity(name))).status_code == 200


@pytest.mark.parametrize("verb", ["disable", "enable"])
async def test_whom_nobody_may_disable(
    client: httpx.AsyncClient, operator: dict[str, str], moto_server: MotoServer, verb: str
) -> None:
    me = (await client.get("/v1/auth/identity", headers=operator)).json()["user_id"]
    own = await client.post(f"/v1/auth/users/{me}/{verb}", headers=operator)
    assert (own.status_code, own.json()) == (409, {"detail": "This is your own user: ask another operator"})
    for nobody in ("0", "x", "999999999999999999", "9" * 40, "-1", "1.0"):
        missing = await client.post(f"/v1/auth/users/{nobody}/{verb}", headers=operator)
        assert (missing.status_code, missing.json()) == (404, {"detail": "User not found"}), nobody
    user = await logged_in(client, moto_server.identity(new_name()))
    for whom in (me, "999999999999999999", "x"):
        answer = await client.post(f"/v1/auth/users/{whom}/{verb}", headers=bearer(user["api_key"]))
        assert (answer.status_code, answer.json()["detail"]) == (403, "Only operators may disable and enable users")
