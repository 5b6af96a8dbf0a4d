"""Operations on the real schema, with times of the test's own."""

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
import sqlalchemy as sa

from services.auth.context import Context
from services.auth.domain.keys import IssuedKey, KeyTerms, UserDisabled
from services.auth.operations.disable import disable_user, enable_user
from services.auth.operations.log_in import count_access_key, count_address, open_session
from services.auth.operations.purge import purge_ended
from services.auth.operations.read import list_keys
from services.auth.operations.revoke import revoke_key
from services.auth.operations.rotate import rotate_key
from services.auth.operations.verify import verify_key
from shared.api_key import ApiKey, new_api_key, parse_api_key
from shared.contracts.auth import Identity
from shared.database import Database, Statement
from shared.errors import NotFound, RateLimited, Unauthenticated
from tests.support.auth import Relay, events_of, new_name, new_person

NOON = datetime(2026, 1, 20, 12, 0, 0, 700_000, tzinfo=UTC)
_COUNT = Statement(sa.text("SELECT count(*) FROM api_keys WHERE user_id = :user_id"))
_VERSION = Statement(sa.text("SELECT version FROM users WHERE id = :user_id"))


async def give_key(auth: Context, *, now: datetime = NOON, name: str | None = None) -> IssuedKey:
    return await open_session(auth, person=new_person(name), new_key=new_api_key(), now=now)


async def identify(auth: Context, text: str, *, now: datetime) -> Identity:
    key = parse_api_key(text)
    assert key is not None
    return await verify_key(auth, key_hash=key.hash, now=now)


async def rotate(auth: Context, text: str, *, now: datetime) -> IssuedKey:
    identity = await identify(auth, text, now=now)
    outcome = await rotate_key(auth, identity=identity, new_key=new_api_key(), idempotency_key=None, now=now)
    return outcome.answer


async def revoke(auth: Context, issued: IssuedKey, *, now: datetime, user_id: int | None = None) -> datetime:
    key = parse_api_key(issued.text)
    assert key is not None
    outcome = await revoke_key(
        auth, user_id=user_id or issued.user_id, key_id=key.key_id, idempotency_key=None, now=now
    )
    return outcome.answer.revoked_at


async def test_rotating_in_a_loop_ends_with_the_session(auth_operations: Context) -> None:
    """Incident 14: whoever stole a key of two hours has it for no more than the session's twelve."""
    issued = await give_key(auth_operations)
    session_ends_at = NOON.replace(microsecond=0) + timedelta(hours=12)
    now, rotations = NOON, 0
    while True:
        now += timedelta(minutes=90)
        if now >= session_ends_at:
            break
        issued = await rotate(auth_operations, issued.text, now=now)
        rotations += 1
        assert issued.expires_at <= session_ends_at
    assert rotations == 7
    assert issued.expires_at == session_ends_at
    assert await identify(auth_operations, issued.text, now=session_ends_at - timedelta(microseconds=1))
    with pytest.raises(Unauthenticated):
        await rotate(auth_operations, issued.text, now=session_ends_at)


async def test_a_new_login_begins_a_new_session(auth_operations: Context) -> None:
    name = new_name()
    await give_key(auth_operations, name=name)
    later = NOON + timedelta(hours=11)
    issued = await give_key(auth_operations, name=name, now=later)
    assert issued.expires_at == later.replace(microsecond=0) + timedelta(hours=2)


async def test_an_old_key_dies_60_seconds_after_its_rotation(auth_operations: Context) -> None:
    old = await give_key(auth_operations)
    await rotate(auth_operations, old.text, now=NOON)
    identity = await identify(auth_operations, old.text, now=NOON + timedelta(seconds=59))
    assert identity.expires_at == NOON + timedelta(seconds=60)
    with pytest.raises(Unauthenticated):
        await identify(auth_operations, old.text, now=NOON + timedelta(seconds=60))


async def test_rotating_an_old_key_again_does_not_prolong_its_life(auth_operations: Context) -> None:
    old = await give_key(auth_operations)
    await rotate(auth_operations, old.text, now=NOON)
    await rotate(auth_operations, old.text, now=NOON + timedelta(seconds=50))
    with pytest.raises(Unauthenticated):
        await identify(auth_operations, old.text, now=NOON + timedelta(seconds=60))


async def test_a_revocation_cuts_the_grace_of_a_rotated_key(auth_operations: Context) -> None:
    old = await give_key(auth_operations)
    await rotate(auth_operations, old.text, now=NOON)
    at = NOON + timedelta(seconds=10)
    assert await revoke(auth_operations, old, now=at) == at
    with pytest.raises(Unauthenticated):
        await identify(auth_operations, old.text, now=at)


async def test_revoking_an_ended_key_tells_when_it_ended(auth_operations: Context, auth_database: Database) -> None:
    issued = await give_key(auth_operations)
    assert await revoke(auth_operations, issued, now=NOON) == NOON
    assert await revoke(auth_operations, issued, now=NOON + timedelta(hours=1)) == NOON
    assert len(await events_of(auth_database, issued.user_id)) == 3


async def test_only_the_owner_revokes_a_key(auth_operations: Context) -> None:
    issued, other = await give_key(auth_operations), await give_key(auth_operations)
    with pytest.raises(NotFound):
        await revoke(auth_operations, issued, now=NOON, user_id=other.user_id)
    assert await identify(auth_operations, issued.text, now=NOON)


async def test_a_rotation_that_loses_against_a_revocation_is_refused(auth_operations: Context) -> None:
    """The key was checked before; what counts is its state when the rotation holds the lock."""
    issued = await give_key(auth_operations)
    identity = await identify(auth_operations, issued.text, now=NOON)
    await revoke(auth_operations, issued, now=NOON)
    with pytest.raises(Unauthenticated):
        await rotate_key(auth_operations, identity=identity, new_key=new_api_key(), idempotency_key=None, now=NOON)
    assert await auth_operations.database.fetch_value(_COUNT, user_id=issued.user_id) == 1


async def test_every_change_is_one_event_and_versions_rise_by_one(
    auth_operations: Context, auth_database: Database
) -> None:
    name = new_name()
    first = await give_key(auth_operations, name=name)
    await give_key(auth_operations, name=name)
    rotated = await rotate(auth_operations, first.text, now=NOON)
    await rotate(auth_operations, first.text, now=NOON)
    await revoke(auth_operations, rotated, now=NOON)
    disabled = await disable_user(auth_operations, user_id=first.user_id, now=NOON)
    for _ in range(2):
        await enable_user(auth_operations, user_id=first.user_id, now=NOON)
    events = await events_of(auth_database, first.user_id)
    assert [event["type"].split(".")[3] for event in events] == [
        "user_created",
        *["key_issued"] * 3,
        "key_revoked",
        "key_issued",
        "key_revoked",
        "user_disabled",
        *["key_revoked"] * 3,
        "user_enabled",
    ]
    assert disabled.answer.keys_revoked == 3
    assert [event["entity_version"] for event in events] == list(range(1, len(events) + 1))
    assert await auth_database.fetch_value(_VERSION, user_id=first.user_id) == len(events)
    assert {event["subject"].rpartition(".")[2] for event in events} == {str(first.user_id)}
    assert first.text not in str([event["data"] for event in events])
    assert isinstance(auth_operations.outbox, Relay)
    assert auth_operations.outbox.woken == 7


async def test_log_ins_of_one_new_person_at_once_make_one_user(
    auth_operations: Context, auth_database: Database
) -> None:
    name = new_name()
    issued = await asyncio.gather(*(give_key(auth_operations, name=name) for _ in range(8)))
    assert len({key.user_id for key in issued}) == 1
    events = await events_of(auth_database, issued[0].user_id)
    assert [event["entity_version"] for event in events] == list(range(1, 10))


async def test_users_differ_by_account_and_by_role(auth_operations: Context) -> None:
    name = new_name()
    people = [
        new_person(name),
        new_person(name, account="111122223333"),
        new_person(name, role_id="AROAANOTHEREXAMPLE12"),
    ]
    ids = {
        (await open_session(auth_operations, person=person, new_key=new_api_key(), now=NOON)).user_id
        for person in people
    }
    assert len(ids) == 3


async def test_a_disabled_user_stays_disabled_whatever_they_do(
    auth_operations: Context, auth_database: Database
) -> None:
    """Incident 14."""
    name = new_name()
    issued = await give_key(auth_operations, name=name)
    identity = await identify(auth_operations, issued.text, now=NOON)
    await disable_user(auth_operations, user_id=issued.user_id, now=NOON)
    for _ in range(2):
        with pytest.raises(UserDisabled):
            await give_key(auth_operations, name=name)
        with pytest.raises(UserDisabled):
            await identify(auth_operations, issued.text, now=NOON)
        with pytest.raises(UserDisabled):
            await rotate_key(auth_operations, identity=identity, new_key=new_api_key(), idempotency_key=None, now=NOON)
    assert await auth_database.fetch_value(_COUNT, user_id=issued.user_id) == 1


async def test_an_enabled_user_logs_in_again_but_their_old_keys_stay_dead(auth_operations: Context) -> None:
    name = new_name()
    issued = await give_key(auth_operations, name=name)
    await disable_user(auth_operations, user_id=issued.user_id, now=NOON)
    await enable_user(auth_operations, user_id=issued.user_id, now=NOON)
    with pytest.raises(Unauthenticated):
        await identify(auth_operations, issued.text, now=NOON)
    assert (await give_key(auth_operations, name=name)).user_id == issued.user_id


async def test_a_key_is_unknown_under_another_server_key(auth_operations: Context) -> None:
    issued = await give_key(auth_operations)
    other = replace(auth_operations, hasher=type(auth_operations.hasher)(b"another server key of 32 bytes.."))
    with pytest.raises(Unauthenticated):
        await identify(other, issued.text, now=NOON)


@pytest.mark.parametrize("key_hash", ["", "0" * 63, "0" * 65, "A" * 64, "%" * 64, "0" * 63 + "\n"])
async def test_what_is_no_hash_is_unknown(auth_operations: Context, key_hash: str) -> None:
    with pytest.raises(Unauthenticated):
        await verify_key(auth_operations, key_hash=key_hash, now=NOON)


async def test_uses_reach_the_table_and_never_go_back(auth_operations: Context) -> None:
    first, second = await give_key(auth_operations), await give_key(auth_operations)
    later = NOON + timedelta(minutes=1)
    await identify(auth_operations, first.text, now=later)
    await identify(auth_operations, second.text, now=NOON)
    await auth_operations.last_used.flush()
    await identify(auth_operations, first.text, now=NOON)
    await auth_operations.last_used.flush()
    pages = [
        await list_keys(auth_operations, user_id=key.user_id, limit=5, offset=0, now=NOON) for key in (first, second)
    ]
    assert [page.keys[0].last_used_at for page in pages] == [later, NOON]


async def test_ended_keys_are_forgotten_and_living_ones_kept(auth_operations: Context, auth_database: Database) -> None:
    long_ago = datetime(2001, 1, 1, tzinfo=UTC)
    name = new_name()
    old = await give_key(auth_operations, name=name, now=long_ago)
    young = await give_key(auth_operations, name=name, now=long_ago + timedelta(minutes=1))
    await count_address(auth_operations, address="192.0.2.1", now=long_ago)
    assert not await purge_ended(auth_operations, now=long_ago + timedelta(hours=3))
    assert await auth_database.fetch_value(_COUNT, user_id=old.user_id) == 2
    await purge_ended(auth_operations, now=long_ago + timedelta(hours=3, seconds=30))
    assert await auth_database.fetch_value(_COUNT, user_id=old.user_id) == 1
    assert await identify(auth_operations, young.text, now=long_ago + timedelta(minutes=2))


async def test_attempts_with_an_access_key_bar_only_the_address_that_they_came_from(auth_operations: Context) -> None:
    minute = datetime(2026, 1, 20, 13, tzinfo=UTC)
    a, b = (new_name() for _ in range(2))

    async def attempt(address: str, key: str, seconds: float) -> None:
        await count_access_key(
            auth_operations, address=address, access_key_id=key, now=minute + timedelta(seconds=seconds)
        )

    await attempt(a, a, 0)
    await attempt(a, a, 30)
    with pytest.raises(RateLimited) as caught:
        await attempt(a, a, 45.5)
    assert caught.value.retry_after_seconds == 15
    await attempt(b, a, 58)
    await attempt(a, b, 59)
    await attempt(a, a, 60)


async def test_log_ins_at_once_are_all_counted(auth_operations: Context) -> None:
    minute = datetime(2026, 1, 20, 14, tzinfo=UTC)
    address = new_name()

    async def attempt() -> bool:
        try:
            await count_address(auth_operations, address=address, now=minute)
        except RateLimited:
            return False
        return True

    assert sum(await asyncio.gather(*(attempt() for _ in range(20)))) == 3


async def test_a_page_of_keys_has_only_living_ones(auth_operations: Context) -> None:
    terms = KeyTerms(timedelta(hours=1), timedelta(hours=2))
    auth = replace(auth_operations, terms=terms)
    name = new_name()
    issued = await give_key(auth, name=name)
    await rotate(auth, issued.text, now=NOON)
    page = await list_keys(auth, user_id=issued.user_id, limit=1, offset=0, now=NOON)
    assert (len(page.keys), page.total) == (1, 2)
    later = NOON + timedelta(seconds=61)
    page = await list_keys(auth, user_id=issued.user_id, limit=10, offset=0, now=later)
    assert (len(page.keys), page.total) == (1, 1)


def test_a_key_that_is_made_shows_no_secret() -> None:
    key: ApiKey = new_api_key()
    issued = IssuedKey(text=key.text, prefix=key.prefix, user_id=1, username="u", expires_at=NOON)
    assert key.text not in f"{issued!r}{issued}"
