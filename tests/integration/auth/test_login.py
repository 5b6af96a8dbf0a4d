"""Logging in, on real servers."""

import json
import logging
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
import sqlalchemy as sa
from prometheus_client import REGISTRY

from deploy.local.aws import ACCOUNT, DEMO_ROLE, FOREIGN_ACCOUNT, Keys, role_arn
from services.auth.settings import AuthSettings
from shared.api_key import parse_api_key
from shared.database import Database, Statement
from tests.support.auth import Client, bearer, log_in, logged_in, login_body, new_name, serving
from tests.support.harness import eventually
from tests.support.servers import MotoServer

UNKNOWN = Keys(access_key_id="ASIAEXAMPLEEXAMPLE12", secret_access_key="a" * 40, session_token="token")
_EVERYTHING = Statement(
    sa.text(
        "SELECT (SELECT json_agg(u) FROM users u)::text || (SELECT json_agg(k) FROM api_keys k)::text"
        " || (SELECT json_agg(o) FROM outbox o)::text || (SELECT json_agg(w) FROM login_windows w)::text"
    )
)
_SESSION = Statement(sa.text("SELECT session_ends_at, hash FROM api_keys WHERE key_id = :key_id"))


async def test_a_session_of_an_allowed_role_gets_a_key(auth_client: Client, moto_server: MotoServer) -> None:
    name = new_name()
    before = datetime.now(UTC).replace(microsecond=0)
    response = await log_in(auth_client, moto_server.identity(name))
    answer = response.json()
    assert response.status_code == 200, answer
    assert list(answer) == [
        "api_key",
        "key_prefix",
        "user_id",
        "username",
        "aws_arn",
        "expires_at",
        "ttl_hours",
    ]
    assert response.headers["cache-control"] == "no-store"
    assert (answer["username"], answer["ttl_hours"]) == (name, 2)
    assert answer["aws_arn"] == f"arn:aws:sts::{ACCOUNT}:assumed-role/SSOCloudDevGpuReservation/{name}"
    assert answer["expires_at"].endswith("Z")
    assert len(answer["expires_at"]) == len("2026-01-20T20:00:00Z")
    expires_at = datetime.fromisoformat(answer["expires_at"])
    assert before + timedelta(hours=2) <= expires_at <= datetime.now(UTC) + timedelta(hours=2)
    key = parse_api_key(answer["api_key"])
    assert key is not None
    assert key.prefix == answer["key_prefix"]
    assert (await auth_client.get("/v1/keys", headers=bearer(answer["api_key"]))).status_code == 200


async def test_a_session_of_the_operators_is_vouched_for_as_one_and_no_other(
    real_auth_settings: AuthSettings, moto_server: MotoServer
) -> None:
    name, other = new_name(), new_name()
    operators = f"arn:aws:sts::{ACCOUNT}:assumed-role/{DEMO_ROLE}/{name}"
    settings = msgspec.structs.replace(real_auth_settings, operators=operators, internal_token="token")
    async with serving(settings) as client:
        for who in (name, other):
            key = parse_api_key((await logged_in(client, moto_server.identity(who)))["api_key"])
            assert key is not None
            reply = await client.post(
                "/internal/verify", json={"key_hash": key.hash}, headers={"X-GPUDev-Internal-Token": "token"}
            )
            assert reply.json()["identity"]["is_operator"] == (who == name)


async def test_one_person_is_one_user(auth_client: Client, moto_server: MotoServer) -> None:
    name = new_name()
    first = await logged_in(auth_client, moto_server.identity(name))
    again = await logged_in(auth_client, moto_server.identity(name))
    other = await logged_in(auth_client, moto_server.identity(new_name()))
    assert first["user_id"] == again["user_id"] != other["user_id"]
    assert first["api_key"] != again["api_key"]


async def test_the_same_name_from_another_account_is_forbidden(auth_client: Client, moto_server: MotoServer) -> None:
    """Incident 13."""
    name = new_name()
    assert (await log_in(auth_client, moto_server.identity(name))).status_code == 200
    response = await log_in(auth_client, moto_server.identity(name, account=FOREIGN_ACCOUNT))
    assert response.status_code == 403
    assert role_arn() in response.json()["detail"]


async def test_another_role_is_forbidden(auth_client: Client, moto_server: MotoServer) -> None:
    response = await log_in(auth_client, moto_server.identity(new_name(), role="SomethingElse"))
    assert response.status_code == 403


async def test_a_user_of_the_account_is_no_role(auth_client: Client, moto_server: MotoServer) -> None:
    response = await log_in(auth_client, moto_server.cloud.keys().admin)
    assert response.status_code == 403
    assert role_arn() in response.json()["detail"]


async def test_a_session_name_that_is_no_username_is_forbidden(auth_client: Client, moto_server: MotoServer) -> None:
    response = await log_in(auth_client, moto_server.identity(new_name() + "+x"))
    assert response.status_code == 403
    assert "session name" in response.json()["detail"]


async def test_wrong_unknown_and_incomplete_credentials_are_refused_alike(
    auth_client: Client, moto_server: MotoServer
) -> None:
    good = moto_server.identity(new_name())
    wrong = msgspec.structs.replace(good, secret_access_key="x" * 40)
    empty = Keys(access_key_id="", secret_access_key="", session_token="")
    answers = [await log_in(auth_client, keys) for keys in (wrong, UNKNOWN, empty)]
    assert [answer.status_code for answer in answers] == [401, 401, 401]
    assert len({answer.text for answer in answers}) == 1
    assert {answer.headers["www-authenticate"] for answer in answers} == {"Bearer"}


async def test_a_body_that_says_where_aws_is_is_refused(auth_client: Client, moto_server: MotoServer) -> None:
    body = {**login_body(moto_server.identity(new_name())), "endpoint_url": "http://evil.example"}
    response = await auth_client.post("/v1/auth/aws-login", json=body)
    assert response.status_code == 400
    assert response.json()["detail"][0]["loc"] == ["body", "endpoint_url"]


@pytest.mark.parametrize(
    ("content", "media_type", "status"),
    [
        (b"{", "application/json", 400),
        (b"", "application/json", 400),
        (b"null", "application/json", 400),
        (b"[" * 10_000, "application/json", 400),
        (b'{"aws_access_key_id": "\xff"}', "application/json", 400),
        (b"{}", "text/plain", 415),
        (b'{"a": "' + b"x" * (16 << 10) + b'"}', "application/json", 413),
    ],
    ids=["cut", "empty", "null", "deep", "not-utf8", "text", "large"],
)
async def test_bodies_that_are_none_are_refused(
    auth_client: Client, content: bytes, media_type: str, status: int
) -> None:
    headers = {"Content-Type": media_type}
    response = await auth_client.post("/v1/auth/aws-login", content=content, headers=headers)
    assert response.status_code == status, response.text
    assert "detail" in response.json()


async def test_of_many_problems_fifty_are_told_and_the_rest_counted(auth_client: Client) -> None:
    body = {f"f{number}": 1 for number in range(1000)}
    response = await auth_client.post("/v1/auth/aws-login", json=body)
    problems = response.json()["detail"]
    assert response.status_code == 400
    assert len(problems) == 51
    assert [problem["type"] for problem in problems[:2]] == ["missing", "missing"]
    assert problems[-1] == {"type": "too_many_problems", "loc": ["body"], "msg": "There are 952 more problems"}


async def test_an_address_is_counted_before_its_body_is_read(real_auth_settings: AuthSettings) -> None:
    settings = msgspec.structs.replace(real_auth_settings, login_limit_per_minute_address=2)
    async with serving(settings) as client:
        headers = {"X-Forwarded-For": "10.255.255.1", "Content-Type": "application/json"}
        answers = [await client.post("/v1/auth/aws-login", content=b"{", headers=headers) for _ in range(5)]
    statuses = [answer.status_code for answer in answers]
    # a new minute may begin once meanwhile, before any of them: three of the five are in one minute all the same
    assert statuses[:2] == [400, 400]
    assert set(statuses) == {400, 429}
    assert statuses.count(400) <= 4


async def test_an_unusable_idempotency_key_is_refused(auth_client: Client, moto_server: MotoServer) -> None:
    response = await auth_client.post(
        "/v1/auth/aws-login",
        json=login_body(moto_server.identity(new_name())),
        headers={"Idempotency-Key": "x" * 256},
    )
    assert response.status_code == 400


async def test_no_secret_is_stored_published_or_logged(
    real_auth_settings: AuthSettings, auth_database: Database, moto_server: MotoServer, logged: Callable[[], str]
) -> None:
    """Incident 16."""
    keys = moto_server.identity(new_name())
    wrong = msgspec.structs.replace(keys, secret_access_key="wrongwrongwrong" + keys.secret_access_key)
    async with serving(msgspec.structs.replace(real_auth_settings, log_level="debug")) as client:
        logging.getLogger().setLevel(logging.DEBUG)  # libraries say all that they may
        api_key = (await logged_in(client, keys))["api_key"]
        rotated = (await client.post("/v1/keys/rotate", headers=bearer(api_key))).json()["api_key"]
        refused = await log_in(client, wrong)
        mixed_up = await client.post("/v1/auth/aws-login", json={keys.secret_access_key: keys.session_token})
        written = logged()
    assert "aws_credentials_refused" in written, "nothing was logged: the test proves nothing"
    stored = await auth_database.fetch_value(_EVERYTHING)
    said = refused.text + mixed_up.text + written
    assert mixed_up.status_code == 400
    for secret in (keys.secret_access_key, keys.session_token, api_key, rotated):
        assert secret is not None
        assert secret not in said
        assert secret not in stored
    assert keys.access_key_id not in stored
    parsed = parse_api_key(api_key)
    assert parsed is not None
    assert parsed.hash not in stored


async def test_the_session_ends_twelve_hours_after_the_proof(
    auth_client: Client, auth_database: Database, moto_server: MotoServer
) -> None:
    before = datetime.now(UTC).replace(microsecond=0)
    prefix = (await logged_in(auth_client, moto_server.identity(new_name())))["key_prefix"]
    row = await auth_database.fetch_one(_SESSION, key_id=prefix.removeprefix("gpudev_"))
    assert row is not None
    assert before <= row["session_ends_at"] - timedelta(hours=12) <= datetime.now(UTC)
    assert len(row["hash"]) == 32


async def test_a_short_session_bounds_the_key_and_the_answer_says_so(
    real_auth_settings: AuthSettings, moto_server: MotoServer
) -> None:
    settings = msgspec.structs.replace(real_auth_settings, key_ttl_hours=24, session_hours=5)
    async with serving(settings) as client:
        answer = await logged_in(client, moto_server.identity(new_name()))
    assert answer["ttl_hours"] == 5
    assert datetime.fromisoformat(answer["expires_at"]) <= datetime.now(UTC) + timedelta(hours=5)


async def test_an_address_has_its_share_of_log_ins(real_auth_settings: AuthSettings) -> None:
    settings = msgspec.structs.replace(real_auth_settings, login_limit_per_minute_address=3)
    async with serving(settings) as client:
        statuses = [await _attempt(client, "203.0.113.1", number) for number in range(8)]
        other = await _attempt(client, "203.0.113.2", 1)
        forged = await _attempt(client, "203.0.113.2, 203.0.113.1", 1)
    # the minute may turn once in between
    assert 2 <= statuses.count(429) <= 5
    assert statuses[0] == other == 401
    assert forged in {401, 429}


async def test_too_many_log_ins_are_told_when_to_come_back(real_auth_settings: AuthSettings) -> None:
    settings = msgspec.structs.replace(real_auth_settings, login_limit_per_minute_access_key=1)
    keys = msgspec.structs.replace(UNKNOWN, access_key_id="ASIA" + new_name().upper())

    async def refused() -> Any:
        response = await log_in(client, keys, address="10.255.255.2")
        return response if response.status_code == 429 else None

    async with serving(settings) as client:
        response = await eventually(refused, "a refusal")
    assert 1 <= int(response.headers["retry-after"]) <= 60
    assert "detail" in response.json()


async def test_while_aws_is_away_the_answer_is_503_and_then_it_works_again(
    real_auth_settings: AuthSettings, moto_server: MotoServer
) -> None:
    keys = moto_server.identity(new_name())
    async with serving(real_auth_settings) as client:
        api_key = (await logged_in(client, keys))["api_key"]
        moto_server.process.stop()
        try:
            answers = [await log_in(client, keys) for _ in range(5)]
            still = await client.get("/v1/keys", headers=bearer(api_key))
        finally:
            moto_server.process.start()
        assert [answer.status_code for answer in answers] == [503] * 5
        assert all(int(answer.headers["retry-after"]) > 0 for answer in answers)
        assert still.status_code == 200

        async def works() -> bool:
            return (await log_in(client, keys)).status_code == 200

        await eventually(works, "log-ins work again")


async def test_while_the_database_is_away_the_answer_is_503(
    real_auth_settings: AuthSettings, moto_server: MotoServer
) -> None:
    settings = msgspec.structs.replace(real_auth_settings, database_url="postgresql://nobody@127.0.0.1:1/none")
    async with serving(settings) as client:
        response = await log_in(client, moto_server.identity(new_name()))
    assert response.status_code == 503
    assert response.headers["retry-after"]


async def _attempt(client: Client, address: str, number: int) -> int:
    keys = msgspec.structs.replace(UNKNOWN, access_key_id=f"ASIAEXAMPLE{number:09}")
    return (await log_in(client, keys, address=address)).status_code


def test_the_example_of_the_contract_has_the_fields_that_are_read() -> None:
    example = json.loads('{"aws_access_key_id": "A", "aws_secret_access_key": "B", "aws_session_token": "C"}')
    assert login_body(Keys(access_key_id="A", secret_access_key="B", session_token="C")) == example


async def test_attempts_are_counted_by_what_came_of_them(
    real_auth_settings: AuthSettings, moto_server: MotoServer
) -> None:
    def counted() -> dict[str, float]:
        outcomes = ("granted", "refused", "not_allowed", "limited", "disabled", "unavailable", "failed")
        return {one: REGISTRY.get_sample_value("gpudev_logins_total", {"outcome": one}) or 0 for one in outcomes}

    before = counted()
    async with serving(msgspec.structs.replace(real_auth_settings, login_limit_per_minute_access_key=1)) as client:
        await log_in(client, moto_server.identity(new_name()))
        answers = [(await log_in(client, UNKNOWN, address="203.0.113.77")).status_code for _ in range(3)]
        await log_in(client, moto_server.identity(new_name(), role="Other"))
    changed = {one: count - before[one] for one, count in counted().items() if count != before[one]}
    refused, limited = answers.count(401), answers.count(429)
    assert limited, "a new minute may begin once"
    assert changed == {"granted": 1, "refused": refused, "limited": limited, "not_allowed": 1}
