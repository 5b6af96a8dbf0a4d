import asyncio
from datetime import UTC, datetime, timedelta

import msgspec
import pytest

from shared.api_key import ApiKey, new_api_key
from shared.contracts.auth import Identity, KeyRevoked
from shared.errors import RateLimited, Unauthenticated, Unavailable
from shared.web import authentication
from shared.web.authentication import IdentityCache, RevocationListener
from tests.support.harness import eventually

NOON = datetime(2026, 1, 20, 12, tzinfo=UTC)


class FakeAuth:
    """Auth as the cache sees it, with clocks that the test moves."""

    def __init__(self) -> None:
        self.identities: dict[str, Identity] = {}
        self.asked: list[str] = []
        self.gate: asyncio.Event | None = None
        self.down = False
        self.seconds = 1000.0
        self.cache = IdentityCache(self.verify, stopwatch=lambda: self.seconds, clock=self.now)

    def now(self) -> datetime:
        return NOON + timedelta(seconds=self.seconds - 1000.0)

    def give_key(self, hours: float = 2, user_id: int = 42) -> ApiKey:
        key = new_api_key()
        self.identities[key.hash] = Identity(
            user_id=user_id, username="jschmidt", key_id=key.key_id, expires_at=self.now() + timedelta(hours=hours)
        )
        return key

    async def verify(self, key_hash: str) -> Identity:
        self.asked.append(key_hash)
        answer = self.identities.get(key_hash)
        if self.gate is not None:
            await self.gate.wait()
        if self.down:
            raise Unavailable("down")
        if answer is None or answer.expires_at <= self.now():
            raise Unauthenticated
        return answer


@pytest.fixture
def auth() -> FakeAuth:
    return FakeAuth()


async def test_a_known_key_is_not_asked_about_again(auth: FakeAuth) -> None:
    key = auth.give_key()
    for _ in range(5):
        assert (await auth.cache.identify(key)).user_id == 42
    assert len(auth.asked) == 1


async def test_a_revoked_key_never_outlives_30_seconds_without_any_event(auth: FakeAuth) -> None:
    key = auth.give_key()
    await auth.cache.identify(key)
    auth.identities.clear()
    auth.seconds += 29.9
    assert (await auth.cache.identify(key)).user_id == 42
    auth.seconds += 0.1
    with pytest.raises(Unauthenticated):
        await auth.cache.identify(key)


async def test_an_unknown_key_is_asked_about_once_in_30_seconds(auth: FakeAuth) -> None:
    key = new_api_key()
    for _ in range(10):
        with pytest.raises(Unauthenticated):
            await auth.cache.identify(key)
    assert len(auth.asked) == 1
    auth.seconds += 30
    with pytest.raises(Unauthenticated):
        await auth.cache.identify(key)
    assert len(auth.asked) == 2


async def test_an_outage_is_not_remembered_as_a_refusal(auth: FakeAuth) -> None:
    key = auth.give_key()
    auth.down = True
    with pytest.raises(Unavailable):
        await auth.cache.identify(key)
    auth.down = False
    assert (await auth.cache.identify(key)).user_id == 42


async def test_the_memory_of_refused_keys_is_bounded(auth: FakeAuth, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(authentication, "_MAX_CACHED", 3)
    keys = [new_api_key() for _ in range(5)]
    for key in keys:
        with pytest.raises(Unauthenticated):
            await auth.cache.identify(key)
    assert len(auth.cache._refused) == 3


async def test_use_does_not_prolong_the_30_seconds(auth: FakeAuth) -> None:
    key = auth.give_key()
    for _ in range(31):
        await auth.cache.identify(key)
        auth.seconds += 1
    assert len(auth.asked) == 2


async def test_a_slow_answer_counts_from_when_it_was_asked_for(auth: FakeAuth) -> None:
    key = auth.give_key()
    auth.gate = asyncio.Event()
    first = asyncio.create_task(auth.cache.identify(key))
    await asked(auth)
    auth.seconds += 20
    auth.gate.set()
    await first
    auth.seconds += 10
    await auth.cache.identify(key)
    assert len(auth.asked) == 2


async def test_a_key_is_refused_at_its_end_though_it_is_remembered(auth: FakeAuth) -> None:
    key = auth.give_key(hours=10 / 3600)
    await auth.cache.identify(key)
    auth.seconds += 10
    with pytest.raises(Unauthenticated):
        await auth.cache.identify(key)


async def test_an_evicted_key_is_asked_about(auth: FakeAuth) -> None:
    key = auth.give_key()
    await auth.cache.identify(key)
    auth.identities.clear()
    auth.cache.evict(key.key_id)
    with pytest.raises(Unauthenticated):
        await auth.cache.identify(key)


async def test_eviction_leaves_other_keys_alone(auth: FakeAuth) -> None:
    key, other = auth.give_key(), auth.give_key()
    await auth.cache.identify(key)
    auth.cache.evict(other.key_id)
    await auth.cache.identify(key)
    assert len(auth.asked) == 1


async def test_an_answer_from_before_an_eviction_is_neither_kept_nor_shared(auth: FakeAuth) -> None:
    key = auth.give_key()
    auth.gate = asyncio.Event()
    early = asyncio.create_task(auth.cache.identify(key))
    await asked(auth)
    auth.identities.clear()
    auth.cache.evict(key.key_id)
    late = asyncio.create_task(auth.cache.identify(key))
    await asked(auth, 2)
    auth.gate.set()
    assert (await early).user_id == 42
    with pytest.raises(Unauthenticated):
        await late
    with pytest.raises(Unauthenticated):
        await auth.cache.identify(key)


async def test_a_herd_asks_once(auth: FakeAuth) -> None:
    key = auth.give_key()
    auth.gate = asyncio.Event()
    herd = [asyncio.create_task(auth.cache.identify(key)) for _ in range(50)]
    await asked(auth)
    auth.gate.set()
    assert {identity.user_id for identity in await asyncio.gather(*herd)} == {42}
    assert len(auth.asked) == 1


async def test_one_caller_going_away_does_not_fail_the_others(auth: FakeAuth) -> None:
    key = auth.give_key()
    auth.gate = asyncio.Event()
    first, second = (asyncio.create_task(auth.cache.identify(key)) for _ in range(2))
    await asked(auth)
    first.cancel()
    await asyncio.sleep(0)
    auth.gate.set()
    assert (await second).user_id == 42


async def test_refusals_and_outages_are_not_remembered(auth: FakeAuth) -> None:
    key = auth.give_key()
    auth.down = True
    with pytest.raises(Unavailable):
        await auth.cache.identify(key)
    auth.down = False
    assert (await auth.cache.identify(key)).user_id == 42


async def test_a_known_key_works_while_auth_is_down(auth: FakeAuth) -> None:
    key = auth.give_key()
    await auth.cache.identify(key)
    auth.down = True
    assert (await auth.cache.identify(key)).user_id == 42


async def test_another_secret_with_a_known_id_gets_nothing_and_harms_nothing(auth: FakeAuth) -> None:
    key = auth.give_key()
    await auth.cache.identify(key)
    with pytest.raises(Unauthenticated):
        await auth.cache.identify(ApiKey(key.key_id, new_api_key().text))
    await auth.cache.identify(key)
    assert len(auth.asked) == 2


async def test_the_cache_stays_within_its_size(auth: FakeAuth, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(authentication, "_MAX_CACHED", 3)
    keys = [auth.give_key() for _ in range(5)]
    for key in keys:
        await auth.cache.identify(key)
    for key in keys[2:]:
        await auth.cache.identify(key)
    assert len(auth.asked) == 5
    await auth.cache.identify(keys[0])
    assert len(auth.asked) == 6


async def asked(auth: FakeAuth, times: int = 1) -> None:
    await eventually(lambda: len(auth.asked) >= times, "auth is asked")


class FakeBroker:
    def on_connect(self, _: object) -> None:
        """Nothing connects."""


class Message(msgspec.Struct):
    data: bytes


@pytest.mark.parametrize("dies_in_seconds", [-1, 0, 0.5, 60], ids=str)
async def test_every_revocation_event_makes_the_cache_ask_again(auth: FakeAuth, dies_in_seconds: float) -> None:
    """Also one that dies "later": the clock of the listener may be behind the clock of auth."""
    key = auth.give_key()
    await auth.cache.identify(key)
    listener = RevocationListener(FakeBroker(), auth.cache)  # type: ignore[arg-type]
    event = KeyRevoked(
        user_id=42,
        key_id=key.key_id,
        key_prefix=key.prefix,
        reason="revoked",
        dies_at=datetime.now(UTC) + timedelta(seconds=dies_in_seconds),
    )
    await listener._on_event(Message(_cloud_event(event)))
    await auth.cache.identify(key)
    assert len(auth.asked) == 2


def _cloud_event(data: KeyRevoked) -> bytes:
    return msgspec.json.encode(
        {
            "specversion": "1.0",
            "id": "6b0f1f0e-58a0-4c39-a1d5-0d0b4a7a2f5e",
            "source": "/gpudev/auth",
            "type": data.type_name(),
            "subject": data.entity_id,
            "time": NOON,
            "sequence": 3,
            "messageid": 1,
            "data": data,
        }
    )


async def test_an_address_has_so_many_keys_refused_a_minute_and_then_waits(auth: FakeAuth) -> None:
    known, waited = auth.give_key(), auth.give_key()
    await auth.cache.identify(known, lambda: "here")
    assert await refusals(auth, "here", 70) == [Unauthenticated] * 60 + [RateLimited] * 10
    assert len(auth.asked) == 61
    assert await refusals(auth, "there", 1) == [Unauthenticated]

    with pytest.raises(RateLimited) as caught:
        await auth.cache.identify(waited, lambda: "here")
    auth.seconds += caught.value.retry_after_seconds or 0
    assert (await auth.cache.identify(waited, lambda: "here")).user_id == 42


async def test_a_key_that_was_good_is_asked_about_again_whatever_its_address_has_tried(auth: FakeAuth) -> None:
    known = auth.give_key()
    await auth.cache.identify(known, lambda: "here")
    auth.seconds += authentication.CACHE_SECONDS
    await refusals(auth, "here", 70)
    assert (await auth.cache.identify(known, lambda: "here")).user_id == 42


async def test_only_refusals_are_counted_also_at_once(auth: FakeAuth) -> None:
    for _ in range(70):
        await auth.cache.identify(auth.give_key(), lambda: "here")
    auth.down = True
    assert await refusals(auth, "here", 70) == [Unavailable] * 70
    auth.down = False
    auth.gate = asyncio.Event()
    asking = asyncio.create_task(refusals(auth, "here", 70, at_once=True))
    await eventually(lambda: len(auth.asked) == 200, "as many as there may be are asked about")
    auth.gate.set()
    assert sorted(map(str, await asking)) == sorted(map(str, [Unauthenticated] * 60 + [RateLimited] * 10))


async def refusals(auth: FakeAuth, address: str, number: int, *, at_once: bool = False) -> list[type[BaseException]]:
    """How keys that nobody was given are answered."""
    asking = [auth.cache.identify(new_api_key(), lambda: address) for _ in range(number)]
    if at_once:
        answers = await asyncio.gather(*asking, return_exceptions=True)
    else:
        answers = [(await asyncio.gather(one, return_exceptions=True))[0] for one in asking]
    return [type(answer) for answer in answers]
