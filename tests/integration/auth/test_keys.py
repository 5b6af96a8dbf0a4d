"""Keys over HTTP: rotate, list, revoke, and every way in which one is refused."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
import sqlalchemy as sa

from shared.api_key import new_api_key
from shared.database import Database, Statement
from tests.support.auth import Client, bearer, events_of, log_in, logged_in, new_name
from tests.support.harness import eventually
from tests.support.servers import MotoServer

AT_ONCE = 10.0
"""By which the event is there; without it the key would be known for 30 s."""
_EXPIRE = Statement(sa.text("UPDATE api_keys SET expires_at = CAST(:at AS timestamptz) WHERE key_id = :key_id"))
_LAST_USED = Statement(sa.text("SELECT last_used_at FROM api_keys WHERE key_id = :key_id"))
_ANSWERS = Statement(sa.text("SELECT string_agg(encode(answer, 'escape'), '') FROM idempotency_keys"))
_DISABLE = Statement(sa.text("UPDATE users SET disabled_at = now() WHERE id = :user_id"))


@pytest.fixture
async def login(auth_client: Client, moto_server: MotoServer) -> dict[str, Any]:
    answer: dict[str, Any] = await logged_in(auth_client, moto_server.identity(new_name()))
    return answer


@pytest.fixture
async def stranger(auth_client: Client, moto_server: MotoServer) -> dict[str, Any]:
    answer: dict[str, Any] = await logged_in(auth_client, moto_server.identity(new_name()))
    return answer


def key_id(answer: dict[str, Any]) -> str:
    return str(answer["key_prefix"]).removeprefix("gpudev_")


async def test_rotation_gives_a_new_key_and_lets_the_old_one_live_on_for_a_while(
    auth_client: Client, login: dict[str, Any]
) -> None:
    response = await auth_client.post("/v1/keys/rotate", headers=bearer(login["api_key"]))
    answer = response.json()
    assert response.status_code == 200, answer
    assert list(answer) == ["api_key", "key_prefix", "user_id", "username", "expires_at"]
    assert response.headers["cache-control"] == "no-store"
    assert (answer["user_id"], answer["username"]) == (login["user_id"], login["username"])
    assert answer["api_key"] != login["api_key"]
    listed = (await auth_client.get("/v1/keys", headers=bearer(answer["api_key"]))).json()
    ends = {key["key_prefix"]: datetime.fromisoformat(key["expires_at"]) for key in listed["keys"]}
    assert ends[answer["key_prefix"]] == datetime.fromisoformat(answer["expires_at"])
    assert timedelta(seconds=50) < ends[login["key_prefix"]] - datetime.now(UTC) <= timedelta(seconds=60)
    assert (await auth_client.get("/v1/keys", headers=bearer(login["api_key"]))).status_code == 200


async def test_a_repeated_rotation_is_answered_alike_and_makes_one_key(
    auth_client: Client, auth_database: Database, login: dict[str, Any]
) -> None:
    headers = {**bearer(login["api_key"]), "Idempotency-Key": str(uuid4())}
    first = await auth_client.post("/v1/keys/rotate", headers=headers)
    again = await auth_client.post("/v1/keys/rotate", headers=headers)
    assert (first.status_code, again.status_code) == (200, 200)
    assert first.text == again.text
    assert "idempotent-replayed" not in first.headers
    assert again.headers["idempotent-replayed"] == "true"
    listed = (await auth_client.get("/v1/keys", headers=bearer(login["api_key"]))).json()
    assert listed["total"] == 2
    assert first.json()["api_key"] not in await auth_database.fetch_value(_ANSWERS)


async def test_an_idempotency_key_belongs_to_one_request(auth_client: Client, login: dict[str, Any]) -> None:
    headers = {**bearer(login["api_key"]), "Idempotency-Key": str(uuid4())}
    assert (await auth_client.post("/v1/keys/rotate", headers=headers)).status_code == 200
    other = await auth_client.delete(f"/v1/keys/{login['key_prefix']}", headers=headers)
    assert other.status_code == 422


async def test_own_keys_are_listed_newest_first_by_page(
    auth_client: Client, login: dict[str, Any], stranger: dict[str, Any]
) -> None:
    newer = (await auth_client.post("/v1/keys/rotate", headers=bearer(login["api_key"]))).json()
    newest = (await auth_client.post("/v1/keys/rotate", headers=bearer(newer["api_key"]))).json()
    headers = bearer(newest["api_key"])
    answer = (await auth_client.get("/v1/keys", headers=headers)).json()
    assert list(answer) == ["keys", "total", "limit", "offset"]
    assert list(answer["keys"][0]) == ["key_prefix", "created_at", "expires_at", "last_used", "current"]
    prefixes = [key["key_prefix"] for key in answer["keys"]]
    assert prefixes == [newest["key_prefix"], newer["key_prefix"], login["key_prefix"]]
    assert [key["current"] for key in answer["keys"]] == [True, False, False]
    assert stranger["key_prefix"] not in prefixes
    page = (await auth_client.get("/v1/keys?limit=1&offset=1", headers=headers)).json()
    assert [key["key_prefix"] for key in page["keys"]] == [newer["key_prefix"]]
    beyond = (await auth_client.get("/v1/keys?offset=9", headers=headers)).json()
    assert (beyond["keys"], beyond["total"]) == ([], 3)


@pytest.mark.parametrize(
    "query",
    [
        "limit=0",
        "limit=501",
        "limit=-1",
        "limit=1.5",
        "limit=NaN",
        "limit=true",
        "limit=x",
        "limit=1e3",
        "limit=99999999999999999999",
        "offset=-1",
        "offset=99999999999999999999",
        "offset=0x1",
    ],
)
async def test_pages_out_of_bounds_are_refused(auth_client: Client, login: dict[str, Any], query: str) -> None:
    """Incident 21."""
    response = await auth_client.get(f"/v1/keys?{query}", headers=bearer(login["api_key"]))
    assert response.status_code == 400, response.text
    assert response.json()["detail"][0]["loc"] == ["query", query.partition("=")[0]]


async def test_a_revoked_key_is_dead_everywhere_at_once(auth_client: Client, login: dict[str, Any]) -> None:
    newer = (await auth_client.post("/v1/keys/rotate", headers=bearer(login["api_key"]))).json()
    response = await auth_client.delete(f"/v1/keys/{login['key_prefix']}", headers=bearer(newer["api_key"]))
    assert response.status_code == 200
    assert list(response.json()) == ["key_prefix", "status", "revoked_at"]

    async def refused() -> bool:
        return (await auth_client.get("/v1/keys", headers=bearer(login["api_key"]))).status_code == 401

    await eventually(refused, "the revoked key is refused", seconds=AT_ONCE)
    again = await auth_client.delete(f"/v1/keys/{login['key_prefix']}", headers=bearer(newer["api_key"]))
    assert again.json() == response.json()
    listed = (await auth_client.get("/v1/keys", headers=bearer(newer["api_key"]))).json()
    assert [key["key_prefix"] for key in listed["keys"]] == [newer["key_prefix"]]


async def test_a_key_may_revoke_itself(auth_client: Client, login: dict[str, Any]) -> None:
    headers = bearer(login["api_key"])
    assert (await auth_client.delete(f"/v1/keys/{login['key_prefix']}", headers=headers)).status_code == 200

    async def refused() -> bool:
        return (await auth_client.post("/v1/keys/rotate", headers=headers)).status_code == 401

    await eventually(refused, "the revoked key cannot rotate", seconds=AT_ONCE)


@pytest.mark.parametrize("prefix", ["gpudev_0123456789", "gpudev_", "nonsense", "gpudev_%25", "gpudev_012345678_", "é"])
async def test_anothers_key_is_as_if_it_were_not_there(
    auth_client: Client, login: dict[str, Any], stranger: dict[str, Any], prefix: str
) -> None:
    """Incident 15."""
    headers = bearer(stranger["api_key"])
    others = await auth_client.delete(f"/v1/keys/{login['key_prefix']}", headers=headers)
    missing = await auth_client.delete(f"/v1/keys/{prefix}", headers=headers)
    assert (others.status_code, missing.status_code) == (404, 404)
    assert others.json() == missing.json() == {"detail": "API key not found"}
    assert (await auth_client.get("/v1/keys", headers=bearer(login["api_key"]))).status_code == 200


ENDPOINTS = [("POST", "/v1/keys/rotate"), ("GET", "/v1/keys"), ("DELETE", "/v1/keys/gpudev_0123456789")]


@pytest.mark.parametrize("endpoint", ENDPOINTS, ids=str)
async def test_whatever_is_wrong_with_a_key_the_answer_is_one(
    auth_client: Client,
    auth_database: Database,
    login: dict[str, Any],
    stranger: dict[str, Any],
    endpoint: tuple[str, str],
) -> None:
    method, path = endpoint
    await auth_client.delete(f"/v1/keys/{stranger['key_prefix']}", headers=bearer(stranger["api_key"]))
    expired = (await auth_client.post("/v1/keys/rotate", headers=bearer(login["api_key"]))).json()
    await auth_database.execute(_EXPIRE, key_id=key_id(expired), at=datetime.now(UTC))
    good, unknown = login["api_key"], new_api_key().text
    cases: list[list[tuple[str, str]]] = [
        [],
        [("Authorization", "")],
        [("Authorization", "Bearer")],
        [("Authorization", good)],
        [("Authorization", f"Basic {good}")],
        [("Authorization", f"Bearer {good[:-1]}")],
        [("Authorization", f"Bearer {good}x")],
        [("Authorization", f"Bearer {good} {good}")],
        [("Authorization", f"Bearer {good}"), ("Authorization", f"Bearer {good}")],
        [("Authorization", f"Bearer {unknown}")],
        [("Authorization", f"Bearer {expired['api_key']}")],
        [("Authorization", "Bearer " + "é" * 40)],
        [("X-Api-Key", good)],
    ]
    answers = [
        await auth_client.request(method, path, headers=[(name.encode(), value.encode()) for name, value in headers])
        for headers in cases
    ]

    async def revoked() -> Any:
        answer = await auth_client.request(method, path, headers=bearer(stranger["api_key"]))
        return answer if answer.status_code == 401 else None

    answers.append(await eventually(revoked, "the revoked key is refused", seconds=AT_ONCE))
    assert {answer.status_code for answer in answers} == {401}
    assert {answer.text for answer in answers} == {'{"detail":"Invalid API key"}'}
    assert {answer.headers["www-authenticate"] for answer in answers} == {"Bearer"}


async def test_a_disabled_user_is_forbidden_and_stays_so(
    auth_client: Client, auth_database: Database, moto_server: MotoServer
) -> None:
    """Incident 14."""
    keys = moto_server.identity(new_name())
    login = await logged_in(auth_client, keys)
    await auth_database.execute(_DISABLE, user_id=login["user_id"])
    again = await log_in(auth_client, keys)
    rotated = await auth_client.post("/v1/keys/rotate", headers=bearer(login["api_key"]))
    assert (again.status_code, rotated.status_code) == (403, 403)
    assert again.json() == rotated.json() == {"detail": "This user is disabled"}
    assert (await log_in(auth_client, keys)).status_code == 403
    assert len(await events_of(auth_database, login["user_id"])) == 2


async def test_a_known_key_costs_no_statement(
    auth_client: Client, auth_database: Database, login: dict[str, Any]
) -> None:
    """With the table locked away, a check that asked it would hang."""
    headers = bearer(login["api_key"])
    path = "/v1/keys/nonsense"
    assert (await auth_client.delete(path, headers=headers)).status_code == 404
    async with auth_database.transaction() as transaction:
        await transaction.execute(Statement(sa.text("LOCK TABLE api_keys IN ACCESS EXCLUSIVE MODE")))
        for _ in range(20):
            assert (await auth_client.delete(path, headers=headers)).status_code == 404


async def test_last_use_is_told(auth_client: Client, auth_database: Database, login: dict[str, Any]) -> None:
    async def written() -> Any:
        return await auth_database.fetch_value(_LAST_USED, key_id=key_id(login))

    assert await written() is None
    before = datetime.now(UTC)
    unused = (await auth_client.post("/v1/keys/rotate", headers=bearer(login["api_key"]))).json()
    assert before <= await eventually(written, "last use written") <= datetime.now(UTC)
    listed = (await auth_client.get("/v1/keys", headers=bearer(login["api_key"]))).json()
    told = {key["key_prefix"]: key["last_used"] for key in listed["keys"]}
    assert told[login["key_prefix"]] is not None
    assert told[unused["key_prefix"]] is None
