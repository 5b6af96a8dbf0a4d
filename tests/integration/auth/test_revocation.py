"""Another service that asks auth over NATS: what it learns, and how soon it learns of a revocation."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import pytest

from services.auth.operations.disable import disable_user
from shared.api_key import ApiKey, new_api_key, parse_api_key
from shared.database import Database
from shared.errors import Forbidden, Unauthenticated
from shared.messaging import Broker
from shared.web.authentication import CACHE_SECONDS, IdentityCache, RevocationListener
from shared.web.verification import verify_by_rpc
from tests.support.auth import Client, bearer, logged_in, new_name, open_auth
from tests.support.harness import eventually, running
from tests.support.promises import promised
from tests.support.servers import MotoServer, NatsServer


class OtherService:
    """The identities of another service, on a connection of its own; its clock is the test's."""

    def __init__(self, url: str, *, listens: bool) -> None:
        self.broker = Broker(url, name="other-service", inbox="_INBOX.jobs")
        self.seconds = 0.0
        self.asked = 0
        self._ask = verify_by_rpc(self.broker)
        self.cache = IdentityCache(self._verify, stopwatch=lambda: self.seconds)
        if listens:
            RevocationListener(self.broker, self.cache)

    async def _verify(self, key_hash: str) -> Any:
        self.asked += 1
        return await self._ask(key_hash)

    async def knows(self, key: ApiKey) -> bool:
        try:
            await self.cache.identify(key)
        except Unauthenticated:
            return False
        return True


@pytest.fixture
async def other(auth_client: Client, nats_server: NatsServer) -> AsyncIterator[OtherService]:
    del auth_client  # it must run
    service = OtherService(nats_server.service_url("jobs"), listens=True)
    async with running(service.broker.run):
        await eventually(lambda: service.broker.connected, "connected")
        await eventually(lambda: _answers(service), "auth answers")
        yield service


@pytest.fixture
async def deaf(auth_client: Client, nats_server: NatsServer) -> AsyncIterator[OtherService]:
    """One that no event reaches."""
    del auth_client  # it must run
    service = OtherService(nats_server.service_url("jobs"), listens=False)
    async with running(service.broker.run):
        await eventually(lambda: service.broker.connected, "connected")
        await eventually(lambda: _answers(service), "auth answers")
        yield service


async def _answers(service: OtherService) -> bool:
    try:
        return not await service.knows(new_api_key())
    except Exception:  # noqa: BLE001 - not yet registered
        return False


def parsed(text: str) -> ApiKey:
    key = parse_api_key(text)
    assert key is not None
    return key


async def login(client: Client, moto: MotoServer) -> tuple[dict[str, Any], ApiKey]:
    answer = await logged_in(client, moto.identity(new_name()))
    return answer, parsed(answer["api_key"])


async def test_another_service_learns_who_it_is(
    auth_client: Client, other: OtherService, moto_server: MotoServer
) -> None:
    answer, key = await login(auth_client, moto_server)
    identity = await other.cache.identify(key)
    assert (identity.user_id, identity.username, identity.key_id) == (answer["user_id"], answer["username"], key.key_id)
    asked = other.asked
    for _ in range(10):
        await other.cache.identify(key)
    assert other.asked == asked


async def test_a_revocation_takes_effect_in_another_service_within_a_second(
    auth_client: Client, other: OtherService, moto_server: MotoServer
) -> None:
    answer, key = await login(auth_client, moto_server)
    assert await other.knows(key)
    await auth_client.delete(f"/v1/keys/{answer['key_prefix']}", headers=bearer(answer["api_key"]))

    async def refused() -> bool:
        return not await other.knows(key)

    with promised(1):
        await eventually(refused, "the revoked key is refused")


async def test_without_the_event_a_revoked_key_lives_30_seconds_at_most(
    auth_client: Client, deaf: OtherService, moto_server: MotoServer
) -> None:
    answer, key = await login(auth_client, moto_server)
    assert await deaf.knows(key)
    await auth_client.delete(f"/v1/keys/{answer['key_prefix']}", headers=bearer(answer["api_key"]))
    deaf.seconds += CACHE_SECONDS - 0.1
    assert await deaf.knows(key)
    deaf.seconds += 0.1
    assert not await deaf.knows(key)


async def test_a_rotation_tells_other_services_the_new_end_of_the_old_key(
    auth_client: Client, other: OtherService, moto_server: MotoServer
) -> None:
    answer, key = await login(auth_client, moto_server)
    long_end = (await other.cache.identify(key)).expires_at
    await auth_client.post("/v1/keys/rotate", headers=bearer(answer["api_key"]))

    async def shorter() -> bool:
        return (await other.cache.identify(key)).expires_at < long_end

    await eventually(shorter, "the new end is known")


async def test_disabling_a_user_takes_effect_in_another_service(
    auth_client: Client, other: OtherService, auth_database: Database, moto_server: MotoServer
) -> None:
    answer, key = await login(auth_client, moto_server)
    assert await other.knows(key)
    # from another process: its relay cannot be woken, and the service's own finds the events by itself
    await disable_user(open_auth(auth_database), user_id=answer["user_id"], now=datetime.now(UTC))

    async def forbidden() -> bool:
        try:
            await other.cache.identify(key)
        except Forbidden:
            return True
        return False

    with promised(5):
        await eventually(forbidden, "the disabled user is refused")
