"""How a browser takes over a log-in: one-time codes, and everything for which one is refused."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
import sqlalchemy as sa

from services.auth.context import Context
from services.auth.domain.keys import CONSOLE_CODE_LIFE, ConsoleCodeRefused
from services.auth.operations.console import make_console_code, use_console_code
from services.auth.operations.disable import disable_user
from services.auth.operations.log_in import open_session
from services.auth.operations.purge import purge_ended
from services.auth.operations.read import list_users
from services.auth.operations.revoke import revoke_key
from services.auth.operations.verify import verify_key
from shared.api_key import new_api_key
from shared.contracts.auth import Identity
from shared.database import Database, Statement
from tests.support.auth import Client, bearer, events_of, logged_in, new_name, new_person
from tests.support.servers import MotoServer

NOW = datetime(2026, 1, 20, 18, 30, tzinfo=UTC)
_CODES = Statement(sa.text("SELECT encode(hash, 'escape') AS hash FROM console_codes WHERE user_id = :user_id"))


@pytest.fixture
async def login(auth_client: Client, moto_server: MotoServer) -> dict[str, Any]:
    answer: dict[str, Any] = await logged_in(auth_client, moto_server.identity(new_name()))
    return answer


async def identity_of(context: Context, *, at: datetime = NOW) -> Identity:
    """Somebody who has just logged in."""
    key = new_api_key()
    await open_session(context, person=new_person(), new_key=key, now=at)
    return await verify_key(context, key_hash=key.hash, now=at)


async def code_of(context: Context, identity: Identity, text: str, *, at: datetime = NOW) -> str:
    """A code that the identity has asked for."""
    made = await make_console_code(context, identity=identity, new_code=text, idempotency_key=None, now=at)
    return made.answer.text


async def test_a_code_becomes_a_key_of_its_own_in_the_same_session(auth_client: Client, login: dict[str, Any]) -> None:
    code = (await auth_client.post("/v1/auth/console-codes", headers=bearer(login["api_key"]))).json()
    assert list(code) == ["code", "path", "expires_at"]
    assert code["path"] == f"/console#code={code['code']}"
    answer = await auth_client.post("/v1/auth/console-login", json={"code": code["code"]})
    given = answer.json()
    assert answer.status_code == 200, given
    assert list(given) == ["api_key", "key_prefix", "user_id", "username", "expires_at"]
    assert (given["user_id"], given["username"]) == (login["user_id"], login["username"])
    assert given["api_key"] != login["api_key"]
    told = (await auth_client.get("/v1/auth/identity", headers=bearer(given["api_key"]))).json()
    assert told == {
        "user_id": login["user_id"],
        "username": login["username"],
        "key_prefix": given["key_prefix"],
        "expires_at": given["expires_at"],
        "is_operator": False,
    }
    again = await auth_client.post("/v1/auth/console-login", json={"code": code["code"]})
    assert (again.status_code, again.json()["detail"]) == (
        403,
        "This link has been used or has expired: run `gpudev console` again",
    )


async def test_of_many_who_use_a_code_at_once_one_gets_a_key(auth_operations: Context) -> None:
    identity = await identity_of(auth_operations)
    code = await code_of(auth_operations, identity, "raced")
    uses = [use_console_code(auth_operations, code=code, new_key=new_api_key(), now=NOW) for _ in range(8)]
    outcomes = await asyncio.gather(*uses, return_exceptions=True)
    refused = [one for one in outcomes if isinstance(one, ConsoleCodeRefused)]
    assert (len(refused), len(outcomes) - len(refused)) == (7, 1)
    events = await events_of(auth_operations.database, identity.user_id)
    assert [event["type"].split(".")[3] for event in events] == ["user_created", "key_issued", "key_issued"]
    assert [event["entity_version"] for event in events] == [1, 2, 3]


async def test_a_code_is_good_for_60_seconds(auth_operations: Context) -> None:
    identity = await identity_of(auth_operations)
    in_time = await code_of(auth_operations, identity, "in time")
    too_late = await code_of(auth_operations, identity, "too late")
    end = NOW + CONSOLE_CODE_LIFE
    assert timedelta(seconds=60) == CONSOLE_CODE_LIFE
    moment = timedelta(milliseconds=1)
    await use_console_code(auth_operations, code=in_time, new_key=new_api_key(), now=end - moment)
    with pytest.raises(ConsoleCodeRefused):
        await use_console_code(auth_operations, code=too_late, new_key=new_api_key(), now=end)


async def test_a_code_dies_with_the_key_that_asked_for_it_and_with_its_user(auth_operations: Context) -> None:
    for end in ("key", "user"):
        identity = await identity_of(auth_operations)
        code = await code_of(auth_operations, identity, f"of an ended {end}")
        if end == "key":
            await revoke_key(
                auth_operations, user_id=identity.user_id, key_id=identity.key_id, idempotency_key=None, now=NOW
            )
        else:
            await disable_user(auth_operations, user_id=identity.user_id, now=NOW)
        with pytest.raises(ConsoleCodeRefused):
            await use_console_code(auth_operations, code=code, new_key=new_api_key(), now=NOW)


async def test_a_code_gives_no_key_beyond_the_session(auth_operations: Context) -> None:
    identity = await identity_of(auth_operations)
    session_end = NOW + auth_operations.terms.session
    late = identity.expires_at - timedelta(seconds=1)
    code = await code_of(auth_operations, identity, "late", at=late)
    issued = await use_console_code(auth_operations, code=code, new_key=new_api_key(), now=late)
    assert late < issued.expires_at <= session_end
    assert issued.expires_at == min(late + auth_operations.terms.ttl, session_end)


async def test_the_table_tells_no_code_and_forgets_the_old_ones(
    auth_operations: Context, auth_database: Database
) -> None:
    identity = await identity_of(auth_operations)
    await code_of(auth_operations, identity, "a-secret-code")
    (row,) = await auth_database.fetch_all(_CODES, user_id=identity.user_id)
    assert "a-secret-code" not in row["hash"]
    await purge_ended(auth_operations, now=NOW + CONSOLE_CODE_LIFE + timedelta(seconds=1))
    assert await auth_database.fetch_all(_CODES, user_id=identity.user_id) == []


async def test_what_is_no_code_is_refused(auth_client: Client) -> None:
    for body, status in (({"code": "x"}, 403), ({"code": "ä"}, 400), ({"code": "x" * 129}, 400), ({}, 400)):
        answer = await auth_client.post("/v1/auth/console-login", json=body)
        assert answer.status_code == status, answer.text
        assert "ä" not in answer.text


async def test_operators_see_who_logged_in_last_first(auth_operations: Context) -> None:
    older = await identity_of(auth_operations, at=NOW + timedelta(days=9000))
    newer = await identity_of(auth_operations, at=NOW + timedelta(days=9001))
    await disable_user(auth_operations, user_id=older.user_id, now=NOW + timedelta(days=9002))
    operator = msgspec.structs.replace(newer, is_operator=True)
    first, total = await list_users(auth_operations, asker=operator, limit=1, offset=0)
    second, _ = await list_users(auth_operations, asker=operator, limit=1, offset=1)
    assert ([user.id for user in first], [user.id for user in second]) == ([newer.user_id], [older.user_id])
    assert (first[0].disabled_at, second[0].disabled_at) == (None, NOW + timedelta(days=9002))
    assert total >= 2


async def test_users_do_not_list_users(auth_client: Client, login: dict[str, Any]) -> None:
    answer = await auth_client.get("/v1/auth/users", headers=bearer(login["api_key"]))
    assert (answer.status_code, answer.json()["detail"]) == (403, "Only operators may list users")
