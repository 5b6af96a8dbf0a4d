"""`gpudev-admin auth`, with the settings of a replica in the environment."""

from datetime import UTC, datetime

import msgspec
import pytest

from services.auth.context import Context
from services.auth.operations.log_in import open_session
from services.auth.operations.verify import verify_key
from services.auth.settings import AuthSettings
from shared.admin import administer
from shared.api_key import new_api_key
from shared.database import Database
from shared.errors import Unauthenticated
from tests.support.auth import auth_settings, events_of, new_name, new_person


@pytest.fixture
def in_a_replica(auth_dsn: str, monkeypatch: pytest.MonkeyPatch) -> AuthSettings:
    settings = auth_settings(database_url=auth_dsn)
    for name, value in msgspec.structs.asdict(settings).items():
        if value is not None:
            monkeypatch.setenv(f"GPUDEV_{name.upper()}", str(value))
    return settings


async def say(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 0) -> str:
    assert await administer(["auth", *arguments]) == code
    told = capsys.readouterr()
    return (told.err if code else told.out).strip()


@pytest.mark.usefixtures("in_a_replica")
async def test_an_operator_disables_and_enables_a_user(
    auth_operations: Context, auth_database: Database, capsys: pytest.CaptureFixture[str]
) -> None:
    name, key = new_name(), new_api_key()
    user = await open_session(auth_operations, person=new_person(name), new_key=key, now=datetime.now(UTC))
    user_id = str(user.user_id)

    found = await say(capsys, "find-user", name)
    assert found.split()[:2] == [user_id, name]
    assert await say(capsys, "disable-user", user_id) == f"User {user_id} is disabled; keys revoked: 1"
    assert await say(capsys, "disable-user", user_id) == f"User {user_id} is disabled; keys revoked: 0"
    assert await say(capsys, "find-user", name) == f"{found}  disabled"
    assert await say(capsys, "enable-user", user_id) == f"User {user_id} is enabled"
    assert await say(capsys, "find-user", name) == found

    with pytest.raises(Unauthenticated):
        await verify_key(auth_operations, key_hash=key.hash, now=datetime.now(UTC))
    told = [event["type"].split(".")[3] for event in await events_of(auth_database, user.user_id)]
    assert told == ["user_created", "key_issued", "user_disabled", "key_revoked", "user_enabled"]


@pytest.mark.usefixtures("in_a_replica")
async def test_a_user_who_is_not_there_is_said_to_be_missing(capsys: pytest.CaptureFixture[str]) -> None:
    assert await say(capsys, "disable-user", "999999999", code=1) == "User not found"
    assert await say(capsys, "find-user", "nobody-of-this-name") == "There is no user named 'nobody-of-this-name'"


@pytest.mark.usefixtures("in_a_replica")
async def test_a_wrong_call_names_the_commands(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        await administer(["auth", "disable-usr", "7"])
    assert "disable-user" in capsys.readouterr().err


async def test_outside_of_a_replica_the_missing_settings_are_named(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("GPUDEV_DATABASE_URL", raising=False)
    told = await say(capsys, "find-user", "alice", code=2)
    assert "GPUDEV_DATABASE_URL is not set" in told
    assert "replica" in told
