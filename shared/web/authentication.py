"""Who a request comes from: the bearer key, checked by auth, remembered for at most 30 s."""

import asyncio
import hmac
import time
from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from typing import Any, TypeVar

import msgspec
from litestar import Request
from litestar.connection import ASGIConnection
from litestar.enums import HttpMethod, ScopeType
from litestar.types import ASGIApp, HTTPScope, Receive, Scope, Send

from shared.api_key import ApiKey, key_prefix, parse_api_key
from shared.audit import Act, begin_act
from shared.clock import Clock, Stopwatch, utc_now
from shared.contracts.auth import Identity, KeyRevoked
from shared.contracts.events import CloudEvent
from shared.errors import Forbidden, Unauthenticated
from shared.messaging import Broker
from shared.web.address import client_address, seen_address
from shared.web.failed_keys import FailedKeys

PUBLIC = "public"
"""`opt` of a handler that asks for no key."""
AUDITED = "audited"
"""`opt` of a handler of GET that changes nothing and is written down all the same, as every other method is."""
API_KEY = "api_key"
"""Of a request's state: the key that it came with."""
CACHE_SECONDS = 30.0
REFUSED_SECONDS = 30.0
_MAX_CACHED = 10_000

_ValueT = TypeVar("_ValueT")

AuthenticatedRequest = Request[Identity, Any, Any]
"""With the user that it comes from."""
Verify = Callable[[str], Awaitable[Identity]]
"""From the hash of a key to its identity; raises Unauthenticated, Forbidden or Unavailable."""


class _Entry(msgspec.Struct, frozen=True):
    key_hash: str
    until: float
    """Reading of the clock from which on it is asked about again."""
    identity: Identity


class IdentityCache:
    """Identities by the id of their key: at most 30 s old, never past their end, evicted when the key is revoked.

    The 30 s bound holds when NATS is cut, too; the eviction makes revocation take effect at once.

    Args:
        verify: Asks auth.
        stopwatch: Tells how old an identity is.
        clock: Tells when a key has expired.
        failures_per_minute: Keys that auth refuses, of one address, until it is asked about no more for it.
    """

    def __init__(
        self,
        verify: Verify,
        stopwatch: Stopwatch = time.monotonic,
        clock: Clock = utc_now,
        failures_per_minute: int = 60,
    ) -> None:
        self._verify = verify
        self._stopwatch = stopwatch
        self._clock = clock
        self._failed = FailedKeys(failures_per_minute, stopwatch)
        self._entries: dict[str, _Entry] = {}
        self._asking: dict[tuple[str, str], asyncio.Future[Identity]] = {}
        self._refused: dict[str, float] = {}
        """Hashes of keys that auth does not know or no longer takes, and until when that is believed."""

    async def identify(self, key: ApiKey, address: Callable[[], str] = str) -> Identity:
        """The key's identity; `address`: where the request comes from.

        Raises:
            RateLimited: Not remembered, and the address has had its share of keys that are not good.
            Unauthenticated: Unknown, expired or revoked.
            Forbidden: The user is disabled.
            Unavailable: Not remembered, and auth does not answer.
        """
        key_hash = key.hash
        entry = self._entries.get(key.key_id)
        # whoever knows the public id of a key must not learn from timing how near their guess of the rest was
        if entry is None or not hmac.compare_digest(entry.key_hash, key_hash):
            if self._refused.get(key_hash, 0.0) > self._stopwatch():
                raise Unauthenticated
            return await self._ask(key.key_id, key_hash, address())
        if entry.until <= self._stopwatch():
            return await self._ask(key.key_id, key_hash, None)
        if entry.identity.expires_at <= self._clock():
            raise Unauthenticated
        return entry.identity

    def remembered(self, key: ApiKey) -> Identity | None:
        """The key's identity if it is good and need not be asked about; None says nothing of the key."""
        entry = self._entries.get(key.key_id)
        if entry is None or entry.until <= self._stopwatch() or entry.identity.expires_at <= self._clock():
            return None
        return entry.identity if hmac.compare_digest(entry.key_hash, key.hash) else None

    def evict(self, key_id: str) -> None:
        """Forget a key that was revoked, and neither share nor remember an answer that is on its way."""
        self._entries.pop(key_id, None)
        for asked in [asked for asked in self._asking if asked[0] == key_id]:
            del self._asking[asked]

    async def _ask(self, key_id: str, key_hash: str, address: str | None) -> Identity:
        """Ask auth; `address`: None for a key that was good a moment ago, which is nobody's guess."""
        # a herd of requests with one new key asks once
        asking = self._asking.get((key_id, key_hash))
        if asking is None:
            if address is not None:
                self._failed.take(address)
            asking = asyncio.ensure_future(self._verify(key_hash))
            self._asking[key_id, key_hash] = asking
            asking.add_done_callback(partial(self._answered, key_id, key_hash, self._stopwatch()))
            if address is not None:
                asking.add_done_callback(partial(self._counted, address))
        return await asyncio.shield(asking)

    def _answered(self, key_id: str, key_hash: str, asked_at: float, asking: asyncio.Future[Identity]) -> None:
        # looked at even when every caller has gone, or asyncio reports it as never retrieved
        failed = asking.cancelled() or asking.exception() is not None
        if self._asking.get((key_id, key_hash)) is not asking:
            return
        del self._asking[key_id, key_hash]
        if not failed:
            self._remember(key_id, _Entry(key_hash, asked_at + CACHE_SECONDS, asking.result()))
        elif not asking.cancelled() and isinstance(asking.exception(), Unauthenticated):
            # no key becomes good again, and none is asked about before it was issued: its text is random, and told
            # only after the commit
            _put(self._refused, key_hash, asked_at + REFUSED_SECONDS)

    def _counted(self, address: str, asking: asyncio.Future[Identity]) -> None:
        if asking.cancelled() or not isinstance(asking.exception(), Unauthenticated | Forbidden):
            self._failed.give_back(address)

    def _remember(self, key_id: str, entry: _Entry) -> None:
        _put(self._entries, key_id, entry)


def _put(cache: dict[str, _ValueT], key: str, value: _ValueT) -> None:
    cache.pop(key, None)
    if len(cache) >= _MAX_CACHED:
        del cache[next(iter(cache))]  # the one that was asked about longest ago
    cache[key] = value


class RevocationListener:
    """Evicts revoked keys from a cache; every replica listens for itself, on core NATS.

    Not a durable consumer: each process has its own cache, and what it misses while it is away the 30 s bound covers.
    """

    def __init__(self, broker: Broker, cache: IdentityCache) -> None:
        self._broker = broker
        self._cache = cache
        self._subscribed = False
        broker.on_connect(self._subscribe)

    async def _subscribe(self) -> None:
        if not self._subscribed:  # nats-py renews the subscriptions of a connection by itself
            await self._broker.client.subscribe(KeyRevoked.subject_filter(), cb=self._on_event)
            self._subscribed = True

    async def _on_event(self, message: Any) -> None:
        event = msgspec.json.decode(message.data, type=CloudEvent)
        # also when it dies later, as after a rotation: auth then tells the new end. To compare with a clock of our own
        # would leave a revoked key alive for 30 s wherever that clock is a moment behind auth's.
        self._cache.evict(msgspec.json.decode(event.data, type=KeyRevoked).key_id)


class AuthenticationMiddleware:
    """Sets `scope["user"]` to the Identity, or refuses; handlers with `opt={"public": True}` are let through.

    Args:
        app: The next layer.
        cache: Where identities come from.
        proxies: As many stand before the service.
    """

    def __init__(self, app: ASGIApp, cache: IdentityCache, proxies: int) -> None:
        self._app = app
        self._cache = cache
        self._proxies = proxies

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] == ScopeType.HTTP:
            handler = scope["route_handler"]
            if not handler.opt.get(PUBLIC):
                key = bearer_key(scope["headers"])
                scope["user"] = await self._cache.identify(key, lambda: client_address(ASGIConnection(scope)))
                scope["state"][API_KEY] = key
            if scope["method"] != HttpMethod.GET or handler.opt.get(AUDITED):
                action = str(getattr(handler, "operation_id", None) or scope["path"])
                begin_act(act_of(action, scope, scope.get("user"), self._proxies))
        await self._app(scope, receive, send)


def act_of(action: str, scope: HTTPScope, who: Identity | None, proxies: int) -> Act:
    """What a request is about to do; its operation writes that down when it does.

    Args:
        action: Operation id of its route.
        scope: The request's.
        who: Whose key it came with; None: no key is asked for.
        proxies: As many stand before the service.
    """
    address = seen_address(scope, proxies)
    if who is None:
        return Act(action=action, address=address)
    return Act(
        action=action,
        address=address,
        user_id=who.user_id,
        username=who.username,
        key_prefix=key_prefix(who.key_id),
    )


def bearer_key(headers: Iterable[tuple[bytes, bytes]]) -> ApiKey:
    """The key that a request came with.

    Raises:
        Unauthenticated: There is none, or it is none.
    """
    given = [value for name, value in headers if name == b"authorization"]
    if len(given) != 1:
        raise Unauthenticated
    scheme, _, text = given[0].decode("latin-1").partition(" ")
    key = parse_api_key(text.strip()) if scheme.lower() == "bearer" else None
    if key is None:
        raise Unauthenticated
    return key
